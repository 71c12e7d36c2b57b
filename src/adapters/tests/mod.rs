//! Catalogues of one, two or three gateways on one SQLite file and one folder.

mod changes;
mod copying;
mod database;
mod probes;
mod sweeping;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::artifacts::{Files, digest_of};
use super::*;

const TENANT: &str = "acme";
const BASE: &str = "base";

/// What several gateways share.
struct Shared(tempfile::TempDir);

/// Takes every artifact for what it is.
struct Any;

impl Inspect for Any {
    fn knows(&self, _: &BaseName) -> bool {
        true
    }

    fn inspect(&self, _: &BaseName, folder: &Path) -> Result<Inspected, PublishError> {
        let files =
            Files::read(folder, u64::MAX - 1).map_err(|error| PublishError::AdapterInvalid(error.to_string()))?;
        Ok(Inspected { digest: files.digest(), rank: 8, bytes: files.weights.len() as u64 })
    }
}

// === impl Shared ===

impl Shared {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn config(&self, gateway: &str) -> Config {
        let database = self.0.path().join("catalogue.db");
        Config {
            data_dir: self.0.path().join(gateway),
            database: Secret::new(format!("sqlite://{}?mode=rwc", database.display())),
            artifacts: ArtifactStore::Folder(self.0.path().join("artifacts")),
            poll_interval: Duration::from_millis(20),
            max_adapter_bytes: 1 << 20,
            sweep: Sweep::default(),
        }
    }

    async fn gateway(&self, name: &str) -> Arc<Catalogue> {
        opened(self.config(name)).await
    }

    /// The database's file is in nobody's way, and no database.
    fn take_database(&self) {
        let file = self.0.path().join("catalogue.db");
        fs::rename(&file, self.0.path().join("away.db")).expect("moved");
        fs::create_dir(file).expect("made");
    }
}

async fn opened(config: Config) -> Arc<Catalogue> {
    Catalogue::open(config, Vec::new(), Arc::new(Any), Arc::default()).await.expect("it opens")
}

/// Publishes an artifact whose weights are `weights`.
async fn publish(catalogue: &Catalogue, name: &str, weights: &str) -> Result<Published, PublishError> {
    let staging = catalogue.staging()?;
    fs::write(staging.path().join(CONFIG_FILE), "{}").expect("written");
    fs::write(staging.path().join(WEIGHTS_FILE), weights).expect("written");
    let (tenant, base, source) =
        (TenantId::new(TENANT), BaseName::new(BASE), Source::Folder(staging.path().to_owned()));
    catalogue.publish(Publish { tenant, name: name.to_owned(), base, source, digest: None }).await
}

async fn published(catalogue: &Catalogue, name: &str, weights: &str) -> Record {
    publish(catalogue, name, weights).await.expect("published").record
}

/// Waits for what other gateways did.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
