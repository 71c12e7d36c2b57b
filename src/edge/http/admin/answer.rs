//! What the admin API answers.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::super::generate::json;
use crate::adapters::{ChangeError, Listed, PublishError, Record, Refused};
use crate::gateway::{Gateway, adapter_state};

/// What goes wrong, in the form of all our errors.
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorInner<'a>,
}

#[derive(Serialize)]
struct ErrorInner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
}

/// A revision, and how it is.
#[derive(Serialize)]
pub(super) struct Adapter {
    tenant: String,
    name: String,
    revision: u32,
    /// What tenants write in `model`.
    model: String,
    base: String,
    digest: String,
    rank: u32,
    bytes: u64,
    created: u64,
    /// `published`, `fetching`, `resident`, `idle`, `failed`, `draining` or `retired`.
    state: &'static str,
    /// The name answers with this revision.
    serving: bool,
    pinned: bool,
    resident_on: Vec<String>,
    /// Where loading it failed lately.
    failed_on: Vec<FailedOn>,
}

#[derive(Serialize)]
struct FailedOn {
    worker: String,
    reason: String,
}

#[derive(Serialize)]
pub(super) struct Refusal {
    tenant: String,
    name: String,
    base: String,
    state: &'static str,
    code: String,
    reason: String,
    created: u64,
}

#[derive(Serialize)]
pub(super) struct List {
    pub(super) adapters: Vec<Adapter>,
    pub(super) refused: Vec<Refusal>,
}

pub(super) fn answer<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("these types have string keys");
    let mut response = json(body.into());
    *response.status_mut() = status;
    response
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

// === impl Adapter ===

impl Adapter {
    pub(super) fn of(gateway: &Gateway, listed: Listed) -> Self {
        let found = gateway.whereabouts(&listed.record.key);
        let state = adapter_state(&listed, &found).as_str();
        let Listed { record, serving, pinned, .. } = listed;
        let Record { key, base, rank, bytes, created, .. } = record;
        Self {
            tenant: key.tenant.to_string(),
            name: key.name.to_string(),
            revision: key.revision,
            model: if serving { key.name.to_string() } else { format!("{}@{}", key.name, key.revision) },
            base: base.to_string(),
            digest: key.digest.to_string(),
            rank,
            bytes,
            created,
            state,
            serving,
            pinned,
            resident_on: found.resident_on,
            failed_on: found.failed_on.into_iter().map(|(worker, reason)| FailedOn { worker, reason }).collect(),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn of(refused: Refused) -> Self {
        let Refused { tenant, name, base, code, reason, created } = refused;
        Self { tenant, name, base, state: "refused", code, reason, created }
    }
}

// === impl Failure ===

impl Failure {
    pub(super) fn invalid(message: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid_request", message: message.to_owned() }
    }

    pub(super) fn too_large(most: u64) -> Self {
        let message = format!("The upload is too large: at most {most} bytes.");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: "request_too_large", message }
    }

    pub(super) fn too_late() -> Self {
        let message = "The upload took too long.".to_owned();
        Self { status: StatusCode::REQUEST_TIMEOUT, code: "upload_timeout", message }
    }

    pub(super) fn internal(error: &std::io::Error) -> Self {
        tracing::error!(%error, "an upload cannot be staged");
        let message = "The upload cannot be stored at the moment.".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "internal", message }
    }

    pub(super) fn response(self) -> Response {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let body = ErrorBody { error: ErrorInner { message: &self.message, kind, code: self.code } };
        answer(self.status, &body)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        use PublishError as E;
        let status = match &error {
            E::InvalidName(_) | E::InvalidUri(_) | E::UnknownBase(_) => StatusCode::BAD_REQUEST,
            E::UnknownTenant(_) | E::ArtifactNotFound(_) => StatusCode::NOT_FOUND,
            E::NameTaken(_) => StatusCode::CONFLICT,
            E::AdapterInvalid(_) | E::UnsafeArchive(_) | E::BrokenArchive(_) | E::DigestMismatch { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            E::StoreUnavailable | E::CatalogueUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            E::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, code: error.code(), message: error.to_string() }
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::NotFound(_) | ChangeError::Unknown(_) => StatusCode::NOT_FOUND,
            ChangeError::Invalid(_) => StatusCode::BAD_REQUEST,
            ChangeError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ChangeError::Exists(_)
            | ChangeError::Overtaken(_)
            | ChangeError::Configured(_)
            | ChangeError::HasAdapters(_) => StatusCode::CONFLICT,
            ChangeError::Retired(_) | ChangeError::NotRetired(_) | ChangeError::NothingBefore => StatusCode::CONFLICT,
            ChangeError::CatalogueUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, code: error.code(), message: error.to_string() }
    }
}
