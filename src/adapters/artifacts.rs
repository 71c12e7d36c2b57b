//! Where artifacts lie: in the store, by tenant and digest, and copied from
//! there into folders of this machine that workers read.
//!
//! A folder that is there is complete and never changes: it is written beside
//! its place, held against its digest, and moved there whole.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::error::{FetchError, OpenError, PublishError};
use super::{ArtifactStore, CONFIG_FILE, WEIGHTS_FILE};
use crate::types::AdapterKey;

/// The longest that the store may take for one file.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Both files of an adapter.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) config: Bytes,
    pub(super) weights: Bytes,
}

pub(super) struct Store {
    store: Arc<dyn ObjectStore>,
    /// Before every path.
    prefix: String,
    /// The bucket's name, of an S3 store.
    bucket: Option<String>,
}

// === impl Files ===

impl Files {
    pub(super) fn read(folder: &Path, most: u64) -> Result<Self, std::io::Error> {
        let read = |name: &str| {
            let mut bytes = Vec::new();
            File::open(folder.join(name))?.take(most).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(Bytes::from(bytes))
        };
        Ok(Self { config: read(CONFIG_FILE)?, weights: read(WEIGHTS_FILE)? })
    }

    /// As the engine computes it: the configuration's length, both files.
    pub(super) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update((self.config.len() as u64).to_le_bytes());
        hasher.update(&self.config);
        hasher.update(&self.weights);
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes them to `folder`, all at once: it is there with both or not at all.
    pub(super) fn write(&self, folder: &Path) -> Result<(), std::io::Error> {
        let parent = folder.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let aside = parent.join(format!(".{}", Ulid::generate()));
        fs::create_dir(&aside)?;
        let written = (|| {
            for (name, bytes) in [(CONFIG_FILE, &self.config), (WEIGHTS_FILE, &self.weights)] {
                let mut file = File::create_new(aside.join(name))?;
                file.write_all(bytes)?;
                file.sync_all()?;
            }
            fs::rename(&aside, folder)
        })();
        if written.is_err() {
            // What stays is swept at the next start.
            let _ = fs::remove_dir_all(&aside);
            if folder.is_dir() {
                return Ok(());
            }
        }
        written
    }
}

// === impl Store ===

impl Store {
    pub(super) fn open(config: &ArtifactStore) -> Result<Self, OpenError> {
        let wrong = |reason: String| OpenError::Setting { what: "the artifact store".to_owned(), reason };
        match config {
            ArtifactStore::Folder(folder) => {
                fs::create_dir_all(folder).map_err(|error| wrong(format!("{}: {error}", folder.display())))?;
                let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| wrong(error.to_string()))?;
                Ok(Self { store: Arc::new(store), prefix: String::new(), bucket: None })
            }
            ArtifactStore::S3 { bucket, prefix, endpoint, region, access_key, secret_key } => {
                // TLS needs one provider for the process; a second call changes nothing.
                let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
                let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_region(region);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
                }
                let builder = builder.with_access_key_id(access_key.expose());
                let builder = builder.with_secret_access_key(secret_key.expose());
                let store = builder.build().map_err(|error| wrong(error.to_string()))?;
                let prefix = prefix.trim_matches('/').to_owned();
                Ok(Self { store: Arc::new(store), prefix, bucket: Some(bucket.clone()) })
            }
        }
    }

    fn path(&self, key: &AdapterKey, file: &str) -> StorePath {
        let own = format!("adapters/{}/{}/{file}", key.tenant, key.digest);
        StorePath::from(if self.prefix.is_empty() { own } else { format!("{}/{own}", self.prefix) })
    }

    /// Content-addressed, so putting what is there changes nothing.
    pub(super) async fn put(&self, key: &AdapterKey, files: &Files) -> Result<(), String> {
        // The configuration last: an artifact without one is not there.
        for (name, bytes) in [(WEIGHTS_FILE, &files.weights), (CONFIG_FILE, &files.config)] {
            let path = self.path(key, name);
            let put = self.store.put(&path, bytes.clone().into());
            let put = tokio::time::timeout(TIMEOUT, put).await.map_err(|_| "it took too long".to_owned())?;
            put.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub(super) async fn get(&self, key: &AdapterKey) -> Result<Files, FetchError> {
        let file = async |name| {
            let unavailable = |error: String| FetchError::Unavailable(format!("{name} cannot be fetched: {error}"));
            let path = self.path(key, name);
            let get = async { self.store.get(&path).await?.bytes().await };
            let got = tokio::time::timeout(TIMEOUT, get).await;
            got.map_err(|_| unavailable("it took too long".to_owned()))?.map_err(|error| unavailable(error.to_string()))
        };
        Ok(Files { config: file(CONFIG_FILE).await?, weights: file(WEIGHTS_FILE).await? })
    }

    pub(super) async fn delete(&self, key: &AdapterKey) -> Result<(), String> {
        for name in [CONFIG_FILE, WEIGHTS_FILE] {
            match self.store.delete(&self.path(key, name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// The files at a place of the store itself: `s3://bucket/folder`, or
    /// `store:folder`. No other host, and nothing outside of it.
    pub(super) async fn at(&self, uri: &str, most: u64) -> Result<Files, PublishError> {
        let invalid = || PublishError::InvalidUri(uri.chars().take(200).collect());
        let inside = match (&self.bucket, uri.strip_prefix("s3://"), uri.strip_prefix("store:")) {
            (Some(bucket), Some(rest), _) => {
                rest.strip_prefix(bucket.as_str()).and_then(|rest| rest.strip_prefix('/')).ok_or_else(invalid)?
            }
            (_, _, Some(rest)) => rest.trim_start_matches('/'),
            _ => return Err(invalid()),
        };
        let folder = StorePath::parse(inside.trim_end_matches('/')).map_err(|_| invalid())?;
        let file = async |name: &'static str| {
            let path = folder.clone().join(name);
            let get = async {
                let found = self.store.get(&path).await?;
                match found.meta.size > most {
                    true => Ok(Err(PublishError::AdapterInvalid(format!(
                        "{name} has {} bytes, at most {most} are allowed",
                        found.meta.size
                    )))),
                    false => found.bytes().await.map(Ok),
                }
            };
            match tokio::time::timeout(TIMEOUT, get).await {
                Ok(Ok(read)) => read,
                Ok(Err(object_store::Error::NotFound { .. })) => {
                    Err(PublishError::ArtifactNotFound(format!("{inside}/{name}")))
                }
                Ok(Err(error)) => Err(PublishError::StoreUnavailable(error.to_string())),
                Err(_) => Err(PublishError::StoreUnavailable("it took too long".to_owned())),
            }
        };
        Ok(Files { config: file(CONFIG_FILE).await?, weights: file(WEIGHTS_FILE).await? })
    }
}

/// An adapter's folder on this machine; its name is no other artifact's.
pub(super) fn cache_folder(data_dir: &Path, key: &AdapterKey) -> PathBuf {
    data_dir.join("cache").join(key.tenant.as_str()).join(&*key.digest)
}
