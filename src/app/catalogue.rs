//! The catalogue, with what it cannot know by itself: the base models' shapes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapters::{self, Artifact, ArtifactStore, Catalogue, Inspect, Inspected, PublishError};
use crate::config::{CatalogueConfig, Config, SecretRef};
use crate::engine::files::{AdapterFiles, AdapterLimits, ModelConfig, ModelFiles};
use crate::telemetry::Metrics;
use crate::types::{BaseName, Secret};

use super::StartError;

pub(super) async fn open(
    config: &Config,
    configured: Vec<(Artifact, PathBuf)>,
    metrics: Arc<Metrics>,
) -> Result<Arc<Catalogue>, StartError> {
    let settings = settings(&config.catalogue)?;
    let inspect = Arc::new(Bases::of(config));
    Ok(Catalogue::open(settings, configured, inspect, metrics).await?)
}

fn settings(config: &CatalogueConfig) -> Result<adapters::Config, StartError> {
    let read = |secret: &SecretRef| secret.read().map_err(StartError::Secret);
    let data_dir = std::path::absolute(&config.data_dir).map_err(|error| StartError::Secret(error.to_string()))?;
    let database = match &config.database {
        Some(secret) => read(secret)?,
        None => Secret::new(format!("sqlite://{}?mode=rwc", data_dir.join("catalogue.db").display())),
    };
    let artifacts = match &config.s3 {
        None => ArtifactStore::Folder(data_dir.join("artifacts")),
        Some(s3) => ArtifactStore::S3 {
            bucket: s3.bucket.clone(),
            prefix: s3.prefix.clone(),
            endpoint: s3.endpoint.clone(),
            region: s3.region.clone(),
            access_key: read(&s3.access_key)?,
            secret_key: read(&s3.secret_key)?,
        },
    };
    let CatalogueConfig { poll_interval, max_adapter_bytes, .. } = *config;
    Ok(adapters::Config { data_dir, database, artifacts, poll_interval, max_adapter_bytes })
}

/// What artifacts are held against.
struct Bases(BTreeMap<BaseName, Base>);

struct Base {
    /// `None` where its shapes are not known.
    head: Option<ModelConfig>,
    names: Vec<String>,
    limits: AdapterLimits,
}

// === impl Bases ===

impl Bases {
    fn of(config: &Config) -> Self {
        let base = |base: &crate::config::BaseConfig| {
            let serving = config.workers.iter().filter(|worker| worker.bases.contains(&base.name));
            // Whichever worker it comes to has to take it.
            let max_rank = serving.map(|worker| worker.max_adapter_rank).min().unwrap_or(usize::MAX);
            let limits = AdapterLimits { max_rank, max_bytes: config.catalogue.max_adapter_bytes };
            let mut names = base.source.clone();
            names.push(base.name.to_string());
            let head = base.path.as_ref().and_then(|path| ModelFiles::read_config(path).ok());
            (base.name.clone(), Base { head, names, limits })
        };
        Self(config.bases.iter().map(base).collect())
    }
}

impl Inspect for Bases {
    fn knows(&self, base: &BaseName) -> bool {
        self.0.contains_key(base)
    }

    fn inspect(&self, base: &BaseName, folder: &Path) -> Result<Inspected, PublishError> {
        let Some(known) = self.0.get(base) else { return Err(PublishError::UnknownBase(base.to_string())) };
        let Some(head) = &known.head else {
            let why = format!("the shapes of `{base}` are not known here: its `path` has to be configured");
            return Err(PublishError::AdapterInvalid(why));
        };
        let names: Vec<&str> = known.names.iter().map(String::as_str).collect();
        let files = AdapterFiles::open(folder, head, &names, known.limits).map_err(|error| {
            if error.is_temporary() {
                PublishError::Internal(error.to_string())
            } else {
                PublishError::AdapterInvalid(error.to_string())
            }
        })?;
        Ok(Inspected { digest: files.digest().to_owned(), rank: files.rank() as u32, bytes: files.bytes() })
    }
}
