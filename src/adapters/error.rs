//! Why an adapter could not be published, changed or fetched. The texts are
//! for the operator and the publisher; none holds a path of this machine or a
//! secret.

use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    #[error("`{0}` is not a name of 1 to 64 characters out of a-z, 0-9, `.`, `_` and `-`")]
    InvalidName(String),
    /// The configuration has an adapter or a model of this name.
    #[error("`{0}` is a model of the tenant's configuration")]
    NameTaken(String),
    #[error("there is no tenant `{0}`")]
    UnknownTenant(String),
    #[error("there is no base model `{0}`")]
    UnknownBase(String),
    #[error("{0}")]
    AdapterInvalid(String),
    #[error("the archive is not safe to read: {0}")]
    UnsafeArchive(String),
    #[error("the archive cannot be read: {0}")]
    BrokenArchive(String),
    #[error("the artifact's digest is {found}, not {expected}")]
    DigestMismatch { expected: String, found: String },
    #[error("`{0}` is not a place in the artifact store")]
    InvalidUri(String),
    #[error("the artifact store has nothing at `{0}`")]
    ArtifactNotFound(String),
    /// Its own words, which hold places of this machine, are in the log.
    #[error("the artifact store does not take or give it at the moment; the server's log says why")]
    StoreUnavailable,
    #[error("the catalogue's database cannot be reached: {0}")]
    CatalogueUnavailable(String),
    #[error("{0}")]
    Internal(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeError {
    #[error("the tenant has no published adapter `{0}`")]
    NotFound(String),
    /// A tenant, or a key of one.
    #[error("there is no {0}")]
    Unknown(String),
    #[error("there is {0} already")]
    Exists(String),
    /// Nothing was changed.
    #[error("{0} was changed by somebody else at the same time: look at it and ask again")]
    Overtaken(String),
    /// It stands in the configuration's file, which is not written here.
    #[error("{0} is of the configuration's file: change it there")]
    Configured(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Internal(String),
    #[error("the tenant has {0} published adapters: retire and delete them first")]
    HasAdapters(u64),
    #[error("revision {0} is retired")]
    Retired(u32),
    #[error("revision {0} is not retired: retire it first")]
    NotRetired(u32),
    #[error("there is no earlier revision to go back to")]
    NothingBefore,
    #[error("the catalogue's database cannot be reached: {0}")]
    CatalogueUnavailable(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The artifact is not what its record says.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unavailable(String),
}

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("{what}: {reason}")]
    Setting { what: String, reason: String },
    #[error("the catalogue's database does not take its tables: {0}")]
    Migration(sqlx::migrate::MigrateError),
}

// === impl PublishError ===

impl PublishError {
    /// A name for programs to read.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "invalid_name",
            Self::NameTaken(_) => "name_taken",
            Self::UnknownTenant(_) => "unknown_tenant",
            Self::UnknownBase(_) => "unknown_base",
            Self::AdapterInvalid(_) => "adapter_invalid",
            Self::UnsafeArchive(_) => "unsafe_archive",
            Self::BrokenArchive(_) => "broken_archive",
            Self::DigestMismatch { .. } => "digest_mismatch",
            Self::InvalidUri(_) => "invalid_uri",
            Self::ArtifactNotFound(_) => "artifact_not_found",
            Self::StoreUnavailable => "artifact_store_unavailable",
            Self::CatalogueUnavailable(_) => "catalogue_unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the same publish may be taken later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::StoreUnavailable | Self::CatalogueUnavailable(_) | Self::Internal(_))
    }
}

// === impl ChangeError ===

impl ChangeError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "adapter_not_found",
            Self::Unknown(_) => "not_found",
            Self::Exists(_) => "already_exists",
            Self::Configured(_) => "configured",
            Self::Invalid(_) => "invalid_request",
            Self::Internal(_) => "internal",
            Self::HasAdapters(_) => "tenant_has_adapters",
            Self::Overtaken(_) => "changed_meanwhile",
            Self::Retired(_) => "adapter_retired",
            Self::NotRetired(_) => "adapter_not_retired",
            Self::NothingBefore => "nothing_before",
            Self::CatalogueUnavailable(_) => "catalogue_unavailable",
        }
    }
}
