//! The guard as the configuration wants it: its second stage, the judges beside it,
//! and who has which policy.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tenantry_guard::Encoder;

use super::StartError;
use crate::config::{Config, JudgeKind};
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

pub(super) fn guard(config: &Config, pool: &Arc<Pool>, metrics: Arc<Metrics>) -> Result<Guard, StartError> {
    let settings = &config.guard.stage2;
    let encoder = settings.path.as_deref().map(open).transpose().map_err(StartError::Guard)?;
    let stage2 = settings.enabled.then(|| Stage2::start(Arc::new(Stage2Encoder(encoder)), settings.pool));
    // TLS needs one provider for the process.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
    let client = client.map_err(|error| StartError::Guard(error.to_string()))?;
    let mut outside: HashMap<Arc<str>, Arc<dyn Outside>> = HashMap::new();
    for judge in &config.guard.judges {
        let (timeout, closed) = (judge.timeout, judge.closed);
        let made: Arc<dyn Outside> = match &judge.kind {
            JudgeKind::Pool { base } => Arc::new(PoolJudge::new(pool.clone(), base.clone(), timeout, closed)),
            JudgeKind::Endpoint { url, key, model } => {
                let key = key.as_ref().map(|key| key.read()).transpose();
                let key = key.map_err(|error| StartError::Guard(format!("judge {}: {error}", judge.name)))?;
                let config = EndpointConfig { url: url.clone(), key, model: model.clone(), timeout, closed };
                Arc::new(Endpoint::new(client.clone(), config))
            }
        };
        outside.insert(judge.name.clone(), made);
    }
    Ok(Guard::new(stage2, outside, metrics))
}

/// The classifier of a folder.
pub(super) fn open(folder: &Path) -> Result<Encoder, String> {
    Encoder::open(folder).map_err(|error| error.to_string())
}
