//! The guard as the configuration wants it: its second stage, the judges beside it,
//! and who has which policy.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tenantry_guard::Encoder;

use super::StartError;
use crate::auth::KeyHash;
use crate::config::{Config, JudgeConfig, JudgeKind};
use crate::gateway::PoolJudge;
use crate::moderation::{Classifier, Endpoint, EndpointConfig, Guard, Outside, Stage2};
use crate::pool::Pool;
use crate::telemetry::Metrics;

/// The encoder as the second stage asks it. `None`: the one in the binary, which takes
/// its memory with the first doubtful text.
struct Stage2Encoder(Option<Encoder>);

impl Classifier for Stage2Encoder {
    fn score(&self, texts: &[&str]) -> Result<Vec<f32>, String> {
        let encoder = self.0.clone().map_or_else(Encoder::embedded, Ok).map_err(|error| error.to_string())?;
        let scores = encoder.score(texts).map_err(|error| error.to_string())?;
        Ok(scores.into_iter().map(|score| score.toxic).collect())
    }
}

/// The judges beside the guard's own models, as they are asked.
pub(super) struct Judges {
    client: reqwest::Client,
    made: HashMap<Arc<str>, Made>,
}

#[derive(Clone)]
struct Made {
    of: JudgeConfig,
    key: Option<KeyHash>,
    judge: Arc<dyn Outside>,
}

/// The guard, and the judges that it asks.
pub(super) fn guard(config: &Config, pool: &Arc<Pool>, metrics: Arc<Metrics>) -> Result<(Guard, Judges), StartError> {
    let settings = &config.guard.stage2;
    let encoder = settings.path.as_deref().map(open).transpose().map_err(StartError::Guard)?;
    let stage2 = settings.enabled.then(|| Stage2::start(Arc::new(Stage2Encoder(encoder)), settings.pool));
    // TLS needs one provider for the process.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
    let client = client.map_err(|error| StartError::Guard(error.to_string()))?;
    let judges = Judges { client, made: HashMap::new() }.changed(config, pool)?;
    Ok((Guard::new(stage2, judges.outside(), metrics), judges))
}

// === impl Judges ===

impl Judges {
    /// Those of another configuration. One that is the same there goes on, and
    /// remembers whether it answers.
    pub(super) fn changed(&self, config: &Config, pool: &Arc<Pool>) -> Result<Self, StartError> {
        let mut made = HashMap::new();
        for judge in &config.guard.judges {
            made.insert(judge.name.clone(), self.made(judge, pool)?);
        }
        Ok(Self { client: self.client.clone(), made })
    }

    fn made(&self, of: &JudgeConfig, pool: &Arc<Pool>) -> Result<Made, StartError> {
        let (timeout, closed) = (of.timeout, of.closed);
        let secret = match &of.kind {
            JudgeKind::Endpoint { key: Some(key), .. } => {
                Some(key.read().map_err(|error| StartError::Guard(format!("judge {}: {error}", of.name)))?)
            }
            JudgeKind::Endpoint { key: None, .. } | JudgeKind::Pool { .. } => None,
        };
        let key = secret.as_ref().map(|key| KeyHash::of(key.expose().as_bytes()));
        if let Some(made) = self.made.get(&of.name).filter(|made| made.of == *of && made.key == key) {
            return Ok(made.clone());
        }
        let judge: Arc<dyn Outside> = match &of.kind {
            JudgeKind::Pool { base } => Arc::new(PoolJudge::new(pool.clone(), base.clone(), timeout, closed)),
            JudgeKind::Endpoint { url, model, .. } => {
                let config = EndpointConfig { url: url.clone(), key: secret, model: model.clone(), timeout, closed };
                Arc::new(Endpoint::new(self.client.clone(), config))
            }
        };
        Ok(Made { of: of.clone(), key, judge })
    }

    pub(super) fn outside(&self) -> HashMap<Arc<str>, Arc<dyn Outside>> {
        self.made.iter().map(|(name, made)| (name.clone(), made.judge.clone())).collect()
    }
}

/// The classifier of a folder.
pub(super) fn open(folder: &Path) -> Result<Encoder, String> {
    Encoder::open(folder).map_err(|error| error.to_string())
}
