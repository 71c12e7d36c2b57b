//! Where artifacts lie: in the store, by tenant and digest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, BufWriter};
use tracing::warn;

use super::database::Place;
use super::error::{FetchError, OpenError, PublishError};
use super::{ArtifactStore, CONFIG_FILE, WEIGHTS_FILE};

/// The longest that the store may take for one file.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Read, or written, at one time.
const PIECE: usize = 1 << 20;

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

/// Why a file did not come from the store. Its own words may hold places.
#[derive(Debug)]
enum Fault {
    NotThere,
    TooLarge(u64),
    Failed(String),
}

// === impl Files ===

impl Files {
    /// `most` bytes of each at most.
    pub(super) fn read(folder: &Path, most: u64) -> Result<Self, PublishError> {
        let read = |name: &str| {
            let internal = |error: io::Error| PublishError::Internal(format!("{name} cannot be read: {error}"));
            let file = File::open(folder.join(name)).map_err(internal)?;
            let mut bytes = Vec::new();
            // One byte more tells a file that is too long from one that is just long enough.
            file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(internal)?;
            match bytes.len() as u64 > most {
                true => Err(PublishError::AdapterInvalid(format!("{name} has more than {most} bytes"))),
                false => Ok(Bytes::from(bytes)),
            }
        };
        Ok(Self { config: read(CONFIG_FILE)?, weights: read(WEIGHTS_FILE)? })
    }

    pub(super) fn digest(&self) -> String {
        let mut hasher = hasher(self.config.len() as u64);
        hasher.update(&self.config);
        hasher.update(&self.weights);
        digits(hasher)
    }
}

/// The digest of the files in a folder, however large they are.
pub(super) fn digest_of(folder: &Path) -> io::Result<String> {
    let (mut config, mut weights) = (File::open(folder.join(CONFIG_FILE))?, File::open(folder.join(WEIGHTS_FILE))?);
    let mut hasher = hasher(config.metadata()?.len());
    let mut piece = vec![0; PIECE];
    for file in [&mut config, &mut weights] {
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => hasher.update(&piece[..read]),
            }
        }
    }
    Ok(digits(hasher))
}

/// As the engine computes it: the configuration's length, both files.
fn hasher(config: u64) -> Sha256 {
    let mut hasher = Sha256::new();
    hasher.update(config.to_le_bytes());
    hasher
}

fn digits(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

// === impl Store ===

impl Store {
    pub(super) fn open(config: &ArtifactStore) -> Result<Self, OpenError> {
        let wrong = |reason: String| OpenError::Setting { what: "the artifact store".to_owned(), reason };
        match config {
            ArtifactStore::Folder(folder) => {
                fs::create_dir_all(folder).map_err(|error| wrong(format!("{}: {error}", folder.display())))?;
                let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| wrong(error.to_string()))?;
                // A record must not outlive its artifact when the machine fails.
                let store = store.with_fsync(true);
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

    fn path(&self, place: &Place, file: &str) -> StorePath {
        let own = format!("adapters/{}/{}/{file}", place.tenant, place.digest);
        StorePath::from(if self.prefix.is_empty() { own } else { format!("{}/{own}", self.prefix) })
    }

    /// Content-addressed, so putting what is there changes nothing.
    pub(super) async fn put(&self, place: &Place, files: &Files) -> Result<(), PublishError> {
        // The configuration last: an artifact without one is not there.
        for (name, bytes) in [(WEIGHTS_FILE, &files.weights), (CONFIG_FILE, &files.config)] {
            let path = self.path(place, name);
            let put = tokio::time::timeout(TIMEOUT, self.store.put(&path, bytes.clone().into())).await;
            put.map_err(|_| unavailable("it took too long"))?.map_err(|error| unavailable(&error.to_string()))?;
        }
        Ok(())
    }

    /// Writes an artifact's files to a folder.
    pub(super) async fn get(&self, place: &Place, folder: &Path) -> Result<(), FetchError> {
        for name in [CONFIG_FILE, WEIGHTS_FILE] {
            let got = self.download(&self.path(place, name), u64::MAX, &folder.join(name)).await;
            got.map_err(|fault| {
                let why = match fault {
                    Fault::NotThere => "the store does not have it".to_owned(),
                    Fault::TooLarge(bytes) => format!("it has {bytes} bytes"),
                    Fault::Failed(error) => error,
                };
                FetchError::Unavailable(format!("{name} cannot be fetched: {why}"))
            })?;
        }
        Ok(())
    }

    /// Whether it is gone.
    pub(super) async fn remove(&self, place: &Place) -> bool {
        // The configuration first: what is left of an artifact is none.
        for name in [CONFIG_FILE, WEIGHTS_FILE] {
            match self.store.delete(&self.path(place, name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    warn!(tenant = place.tenant, digest = place.digest, %error, "an artifact cannot be removed");
                    return false;
                }
            }
        }
        true
    }

    /// Writes the files at a place of the store itself to a folder:
    /// `s3://bucket/folder`, or `store:folder`. No other host, and nothing
    /// outside of it.
    pub(super) async fn at(&self, uri: &str, most: u64, folder: &Path) -> Result<(), PublishError> {
        let invalid = || PublishError::InvalidUri(uri.chars().take(200).collect());
        let inside = match (&self.bucket, uri.strip_prefix("s3://"), uri.strip_prefix("store:")) {
            (Some(bucket), Some(rest), _) => {
                rest.strip_prefix(bucket.as_str()).and_then(|rest| rest.strip_prefix('/')).ok_or_else(invalid)?
            }
            (_, _, Some(rest)) => rest.trim_start_matches('/'),
            _ => return Err(invalid()),
        };
        let place = StorePath::parse(inside.trim_end_matches('/')).map_err(|_| invalid())?;
        for name in [CONFIG_FILE, WEIGHTS_FILE] {
            let got = self.download(&place.clone().join(name), most, &folder.join(name)).await;
            got.map_err(|fault| match fault {
                Fault::NotThere => PublishError::ArtifactNotFound(format!("{inside}/{name}")),
                Fault::TooLarge(bytes) => {
                    PublishError::AdapterInvalid(format!("{name} has {bytes} bytes, at most {most} are allowed"))
                }
                Fault::Failed(error) => unavailable(&error),
            })?;
        }
        Ok(())
    }

    /// Writes one file to this machine, piece by piece.
    async fn download(&self, path: &StorePath, most: u64, to: &Path) -> Result<(), Fault> {
        let download = async {
            let found = self.store.get(path).await?;
            if found.meta.size > most {
                return Err(Fault::TooLarge(found.meta.size));
            }
            let mut pieces = match found.payload {
                GetResultPayload::File(mut from, _) => {
                    let to = to.to_owned();
                    return aside(move || io::copy(&mut from, &mut File::create_new(to)?).map(drop)).await;
                }
                GetResultPayload::Stream(pieces) => pieces,
            };
            let mut file = BufWriter::with_capacity(PIECE, tokio::fs::File::create_new(to).await?);
            while let Some(piece) = pieces.next().await {
                file.write_all(&piece?).await?;
            }
            Ok(file.flush().await?)
        };
        tokio::time::timeout(TIMEOUT, download)
            .await
            .unwrap_or_else(|_| Err(Fault::Failed("it took too long".to_owned())))
    }
}

/// Work on files, where it delays nobody.
async fn aside(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Fault::Failed(error.to_string()))??)
}

/// What the store says is for the log: it holds places of this machine.
fn unavailable(why: &str) -> PublishError {
    warn!(why, "the artifact store fails");
    PublishError::StoreUnavailable
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotThere,
            error => Self::Failed(error.to_string()),
        }
    }
}
