//! What operators change of a name: which revision answers, and which are
//! there. The database decides, not what this gateway has seen of it.

use tracing::info;

use super::Record;
use super::backing::Backing;
use super::catalogue::Catalogue;
use super::database::{Down, RolledBack, Standing};
use super::error::ChangeError;
use super::now;
use crate::types::TenantId;

// === impl Catalogue ===

impl Catalogue {
    /// Has the name answer with this revision, whatever is published later.
    pub async fn pin(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        match self.change(|backing| async { backing.database.pin(tenant, name, revision).await }).await? {
            Standing::Living => self.serving(tenant, name, revision),
            Standing::Retired => Err(ChangeError::Retired(revision)),
            Standing::Missing => Err(no_revision(name, revision)),
        }
    }

    /// Has the name answer with the newest revision again.
    pub async fn latest(&self, tenant: &TenantId, name: &str) -> Result<Record, ChangeError> {
        let newest = self.change(|backing| async { backing.database.unpin(tenant, name).await }).await?;
        self.serving(tenant, name, newest.ok_or_else(|| ChangeError::NotFound(name.to_owned()))?)
    }

    /// Pins the name to the revision before the one that answers now.
    pub async fn roll_back(&self, tenant: &TenantId, name: &str) -> Result<Record, ChangeError> {
        match self.change(|backing| async { backing.database.roll_back(tenant, name).await }).await? {
            RolledBack::To(revision) => self.serving(tenant, name, revision),
            RolledBack::NothingBefore => Err(ChangeError::NothingBefore),
            RolledBack::Missing => Err(ChangeError::NotFound(name.to_owned())),
        }
    }

    /// Takes a revision out of service; what runs on it finishes.
    pub async fn retire(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        match self.change(|backing| async { backing.database.retire(tenant, name, revision, now()).await }).await? {
            Standing::Living => info!(%tenant, name, revision, "adapter retired"),
            Standing::Retired => {}
            Standing::Missing => return Err(no_revision(name, revision)),
        }
        self.revision(tenant, name, revision)
    }

    /// Deletes a retired revision. Its artifact is swept where no other
    /// revision has it.
    pub async fn delete(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<(), ChangeError> {
        match self.change(|backing| async { backing.database.delete(tenant, name, revision, now()).await }).await? {
            Standing::Retired => info!(%tenant, name, revision, "adapter deleted"),
            Standing::Living => return Err(ChangeError::NotRetired(revision)),
            Standing::Missing => return Err(no_revision(name, revision)),
        }
        Ok(())
    }

    fn serving(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        info!(%tenant, name, revision, "adapter's serving revision changed");
        self.revision(tenant, name, revision)
    }

    fn revision(&self, tenant: &TenantId, name: &str, revision: u32) -> Result<Record, ChangeError> {
        let snapshot = self.snapshot.load();
        snapshot.revision(tenant, name, revision).cloned().ok_or_else(|| no_revision(name, revision))
    }

    /// Makes a change, and sees it.
    pub(super) async fn change<'a, T, F: Future<Output = Result<T, Down>>>(
        &'a self,
        work: impl FnOnce(&'a Backing) -> F,
    ) -> Result<T, ChangeError> {
        let backing = self.backing().map_err(|error| ChangeError::CatalogueUnavailable(error.to_string()))?;
        let down = |Down(why)| ChangeError::CatalogueUnavailable(why);
        backing.ready().await.map_err(down)?;
        let done = work(backing).await.map_err(down)?;
        self.refresh().await;
        Ok(done)
    }
}

fn no_revision(name: &str, revision: u32) -> ChangeError {
    ChangeError::NotFound(format!("{name}@{revision}"))
}
