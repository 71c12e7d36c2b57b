//! The catalogue, with what it cannot know by itself: the base models' shapes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::adapters::{self, Artifact, ArtifactStore, Catalogue, Inspect, Inspected, PublishError, Sweep};
use crate::config::{CatalogueConfig, Config, DriverConfig, SecretRef};
use crate::engine::files::{AdapterFiles, AdapterLimits, ModelConfig, ModelFiles};
use crate::telemetry::Metrics;
use crate::types::{BaseName, Secret};

use super::StartError;

pub(super) async fn open(
    config: &Config,
    configured: Vec<(Artifact, PathBuf)>,
    bases: &Arc<Bases>,
    metrics: Arc<Metrics>,
) -> Result<Arc<Catalogue>, StartError> {
    let settings = settings(&config.catalogue)?;
    Ok(Catalogue::open(settings, configured, bases.clone(), metrics).await?)
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
    let sweep = Sweep::default();
    Ok(adapters::Config { data_dir, database, artifacts, poll_interval, max_adapter_bytes, sweep })
}

/// What artifacts are held against. Swapped whole when the configuration is.
pub(super) struct Bases(ArcSwap<BTreeMap<BaseName, Base>>);

pub(super) struct Base {
    /// `None` where its shapes are not known.
    head: Option<ModelConfig>,
    names: Vec<String>,
    limits: AdapterLimits,
    /// What the roomiest of its workers may hold; `None` where none loads adapters.
    room: Option<u64>,
}

// === impl Bases ===

impl Bases {
    pub(super) fn of(config: &Config) -> Self {
        Self(ArcSwap::from_pointee(read(config)))
    }

    pub(super) fn change(&self, other: Self) {
        self.0.store(other.0.into_inner());
    }
}

fn read(config: &Config) -> BTreeMap<BaseName, Base> {
    let base = |base: &crate::config::BaseConfig| {
        let serving = config.workers.iter().filter(|worker| worker.bases.contains(&base.name));
        // Whichever worker it comes to has to take it.
        let max_rank = serving.clone().map(|worker| worker.max_adapter_rank).min().unwrap_or(usize::MAX);
        let room = serving.filter(|worker| loads_adapters(&worker.driver)).map(|worker| worker.adapter_bytes).max();
        let limits = AdapterLimits { max_rank, max_bytes: config.catalogue.max_adapter_bytes };
        let mut names = base.source.clone();
        names.push(base.name.to_string());
        let head = base.path.as_ref().and_then(|path| ModelFiles::read_config(path).ok());
        (base.name.clone(), Base { head, names, limits, room })
    };
    config.bases.iter().map(base).collect()
}

fn loads_adapters(driver: &DriverConfig) -> bool {
    match driver {
        DriverConfig::Embedded(_) | DriverConfig::Grpc(_) | DriverConfig::Vllm { .. } => true,
        DriverConfig::LlamaCpp { .. } | DriverConfig::OpenAi(_) => false,
    }
}

impl Inspect for Bases {
    fn knows(&self, base: &BaseName) -> bool {
        self.0.load().contains_key(base)
    }

    fn inspect(&self, base: &BaseName, folder: &Path) -> Result<Inspected, PublishError> {
        let bases = self.0.load();
        let Some(known) = bases.get(base) else { return Err(PublishError::UnknownBase(base.to_string())) };
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
        if let Some(room) = known.room.filter(|room| files.bytes() > *room) {
            let bytes = files.bytes();
            let why = format!("its weights have {bytes} bytes, and no worker of `{base}` may hold more than {room}");
            return Err(PublishError::AdapterInvalid(format!("{why} (`adapter_bytes`)")));
        }
        Ok(Inspected { digest: files.digest().to_owned(), rank: files.rank() as u32, bytes: files.bytes() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::drivers::MAX_ADAPTER_BYTES;
    use super::*;

    #[test]
    fn no_more_may_be_published_than_the_engine_takes() {
        let parsed = |most: &str| {
            let text = format!(
                "bases.one.path = \"one.gguf\"\nworkers.local = {{ driver = \"embedded\", bases = [\"one\"] }}\n\
                 [catalogue]\n{most}\n[[tenants]]\nid = \"acme\"\nkeys = [{{ demo = \"sk-demo-acme\" }}]\n"
            );
            crate::config::parse(Path::new("conf/t.toml"), &text, [])
        };
        assert_eq!(parsed("").expect("no problem").config.catalogue.max_adapter_bytes, MAX_ADAPTER_BYTES);
        assert!(parsed(&format!("max_adapter_bytes = {MAX_ADAPTER_BYTES}")).is_ok());
        assert!(parsed(&format!("max_adapter_bytes = {}", MAX_ADAPTER_BYTES + 1)).is_err());
    }
}
