//! Publishing: staged, validated, stored, written down.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};
use ulid::Ulid;

use super::artifacts::Files;
use super::backing::Backing;
use super::catalogue::Catalogue;
use super::database::{AdapterRow, Down};
use super::error::PublishError;
use super::{Artifact, Publish, Record, now, plain_name};

/// A folder for an upload; removed when dropped.
#[derive(Debug)]
pub struct Staging(PathBuf);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub record: Record,
    /// `false` where the newest revision is this artifact already.
    pub new: bool,
}

// === impl Catalogue ===

impl Catalogue {
    /// A folder to write an upload to.
    pub fn staging(&self) -> Result<Staging, PublishError> {
        let backing = self.backing()?;
        let folder = backing.config.data_dir.join("staging").join(Ulid::generate().to_string());
        fs::create_dir(&folder).map_err(|error| PublishError::Internal(format!("staging: {error}")))?;
        Ok(Staging(folder))
    }

    /// The largest upload that makes sense.
    pub fn max_upload(&self) -> u64 {
        self.backing.as_ref().map_or(0, |backing| backing.config.max_adapter_bytes) + (2 << 20)
    }

    /// Validates, stores and writes down an adapter. Afterwards its name
    /// answers here, and at other gateways with their next look.
    pub async fn publish(&self, publish: Publish) -> Result<Published, PublishError> {
        let backing = self.backing()?;
        let published = self.try_publish(backing, &publish).await;
        match &published {
            Ok(Published { record, new }) => {
                backing.metrics.adapter_published("ok");
                info!(adapter = %record.key, base = %record.base, new, "adapter published");
                self.refresh().await;
            }
            Err(error) => self.refused(&publish, error).await,
        }
        published
    }

    /// Counts a publish that was refused, and lists it for its tenant.
    pub async fn refused(&self, publish: &Publish, error: &PublishError) {
        let Some(backing) = &self.backing else { return };
        warn!(tenant = %publish.tenant, name = publish.name, code = error.code(), %error, "adapter refused");
        backing.metrics.adapter_published(if error.is_temporary() { "error" } else { "refused" });
        let nobodys = matches!(error, PublishError::UnknownTenant(_) | PublishError::InvalidName(_));
        if !error.is_temporary() && !nobodys {
            backing.note_refusal(publish, error).await;
        }
    }

    async fn try_publish(&self, backing: &Backing, publish: &Publish) -> Result<Published, PublishError> {
        plain_name(publish.tenant.as_str())?;
        plain_name(&publish.name)?;
        let Publish { tenant, name, base, source, digest } = publish;
        let taken =
            |(artifact, _): &(Artifact, PathBuf)| artifact.key.tenant == *tenant && *artifact.key.name == **name;
        if self.configured.load().iter().any(taken) {
            return Err(PublishError::NameTaken(name.clone()));
        }
        if !backing.inspect.knows(base) {
            return Err(PublishError::UnknownBase(base.to_string()));
        }
        let place = Arc::new(backing.places.clone().acquire_owned().await.expect("nobody closes it"));
        let staging = Arc::new(self.staging()?);
        let folder = backing.staged(source, &staging, &place).await?;
        let (inspect, base_name, inspected) = (backing.inspect.clone(), base.clone(), folder.clone());
        let most = backing.config.max_adapter_bytes;
        let held = (place.clone(), staging.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let _held = held;
            let found = inspect.inspect(&base_name, &inspected)?;
            let files = Files::read(&inspected, most)?;
            // What was checked and what is stored are the same bytes.
            match files.digest() == found.digest {
                true => Ok((found, files)),
                false => Err(PublishError::Internal("the artifact changed while it was read".to_owned())),
            }
        });
        let (found, files) =
            reading.await.unwrap_or_else(|_| Err(PublishError::Internal("validating it panicked".to_owned())))?;
        if let Some(expected) = digest.as_ref().filter(|expected| !expected.eq_ignore_ascii_case(&found.digest)) {
            let expected = expected.chars().take(100).collect();
            return Err(PublishError::DigestMismatch { expected, found: found.digest });
        }
        let row = AdapterRow {
            tenant: tenant.to_string(),
            name: name.clone(),
            revision: 0,
            digest: found.digest,
            base: base.to_string(),
            rank: found.rank,
            bytes: found.bytes,
            created: now(),
            retired: None,
        };
        let (place, away) = (row.place(), |Down(why)| PublishError::CatalogueUnavailable(why));
        backing.ready().await.map_err(away)?;
        // From here on it is swept if this breaks off, and not before.
        backing.database.claim(&place, now()).await.map_err(away)?;
        backing.store.put(&place, &files).await?;
        let (row, new) = backing.database.insert(&row).await.map_err(away)?;
        Ok(Published { record: row.record(), new })
    }
}

// === impl Staging ===

impl Staging {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}
