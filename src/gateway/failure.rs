//! The rooms' errors in the product's words. What a tenant reads says what
//! the tenant can act on; what a room or a worker said goes to the log.

use std::time::Duration;

use crate::admission::{Refusal, Scope};
use crate::auth::AuthError;
use crate::moderation::Blocked;
use crate::pool::{PoolError, WorkerError};
use crate::types::{Error, ErrorKind, Limit, Stage};

const SOON: Duration = Duration::from_secs(1);
const OVERLOADED: &str = "The server is overloaded. Try again later.";

pub(super) fn unauthenticated(error: AuthError) -> Error {
    let message = match error {
        AuthError::Missing => {
            "You didn't provide an API key. Provide it in an Authorization header using Bearer auth \
             (Authorization: Bearer YOUR_KEY)."
        }
        AuthError::Scheme => {
            "The Authorization header is malformed. It must be of the form `Authorization: Bearer YOUR_KEY`."
        }
        AuthError::UnknownKey => "Incorrect API key provided.",
        AuthError::Expired => "The API key has expired.",
        AuthError::Disabled => return Error::new(ErrorKind::Forbidden, "The account of this API key is disabled."),
    };
    Error::new(ErrorKind::Unauthenticated, message)
}

pub(super) fn refused(refusal: &Refusal) -> Error {
    let after = refusal.wait().unwrap_or(SOON);
    match refusal {
        Refusal::Limit { limit, scope, allowed, .. } => {
            let whose = match scope {
                Scope::Tenant => String::new(),
                Scope::Key(_) => " for your API key".to_owned(),
                Scope::Model(model) => format!(" for model `{model}`"),
            };
            let message = match limit {
                Limit::Concurrency => format!(
                    "Rate limit reached{whose} on {limit}: at most {allowed} generations may run at one time. \
                     Try again when one has ended."
                ),
                budget if budget.is_budget() => format!(
                    "You exceeded your current quota{whose} on {limit}: {allowed}. It is whole again in {}.",
                    length(after)
                ),
                _ => format!("Rate limit reached{whose} on {limit}: {allowed}. Please try again in {}.", length(after)),
            };
            Error::new(ErrorKind::LimitExceeded(*limit), message).with_retry_after(after)
        }
        Refusal::Full { of_tenant: true, .. } => {
            let message = "Too many of your requests are waiting for this model already. Try again later.";
            Error::new(ErrorKind::QueueFull, message).with_retry_after(bounded(after))
        }
        Refusal::Full { of_tenant: false, .. } => {
            Error::new(ErrorKind::QueueFull, OVERLOADED).with_retry_after(bounded(after))
        }
        Refusal::TooLate { .. } => {
            let message = "The model is overloaded: the request would not be answered in time. Try again later.";
            Error::new(ErrorKind::QueueTimeout, message).with_retry_after(bounded(after))
        }
        Refusal::Waited => {
            let message = "The model is overloaded: the request waited too long for a worker. Try again later.";
            Error::new(ErrorKind::QueueTimeout, message).with_retry_after(SOON)
        }
    }
}

/// Names the category and the field, and quotes nothing.
pub(super) fn blocked(blocked: Blocked) -> Error {
    match blocked {
        Blocked::Found(finding) if finding.stage == Stage::Unjudged => {
            let message = "The prompt could not be checked by the content filter. Try again later.";
            Error::new(ErrorKind::GuardUnavailable, message).with_retry_after(SOON)
        }
        Blocked::Found(finding) => {
            let message = format!("The prompt was blocked by the content filter: {}.", finding.category);
            let error = Error::new(ErrorKind::PromptBlocked, message).with_param(finding.place.to_string());
            error.with_detail(format!("{} by {}", finding.category, finding.stage.as_str()))
        }
        Blocked::Unreadable(place) => {
            let message = "A prompt of token ids cannot be checked by the content filter. Send it as text.";
            Error::invalid(place, message)
        }
    }
}

/// Of a wait that was guessed.
fn bounded(wait: Duration) -> Duration {
    wait.clamp(SOON, Duration::from_secs(60))
}

fn length(wait: Duration) -> String {
    let seconds = wait.as_secs_f64();
    if seconds < 60.0 { format!("{:.3} s", seconds) } else { format!("{} s", wait.as_secs()) }
}

pub(super) fn deadline(timeout: Duration) -> Error {
    Error::new(ErrorKind::Deadline, format!("The request did not finish within {} seconds.", timeout.as_secs_f64()))
}

pub(super) fn shutting_down() -> Error {
    Error::new(ErrorKind::ShuttingDown, "The server is shutting down.").with_retry_after(SOON)
}

pub(super) fn pool(error: &PoolError) -> Error {
    match error {
        PoolError::NoWorker { .. } => {
            Error::new(ErrorKind::NoWorker, "No worker can serve this model at the moment.").with_retry_after(SOON)
        }
        PoolError::NoArtifact { .. } => adapter_unavailable(),
        PoolError::Worker { source, .. } => worker(source),
        PoolError::BackingOff { source, left, .. } => worker(source).with_retry_after((*left).max(SOON)),
    }
    .with_detail(error.to_string())
}

pub(super) fn worker(error: &WorkerError) -> Error {
    let told = match error {
        WorkerError::Refused(refusal) => return refusal.clone(),
        WorkerError::Busy => Error::new(ErrorKind::QueueFull, OVERLOADED).with_retry_after(SOON),
        WorkerError::Unavailable(_) => {
            Error::new(ErrorKind::NoWorker, "No worker can serve this model at the moment.").with_retry_after(SOON)
        }
        WorkerError::Failed(_) => Error::new(ErrorKind::Upstream, "The model's worker failed."),
        WorkerError::AdapterInvalid(_) => {
            Error::new(ErrorKind::AdapterInvalid, "The model's adapter is broken and cannot be loaded.")
        }
        WorkerError::AdapterMissing(_) | WorkerError::AdapterMismatch(_) | WorkerError::AdapterUnavailable(_) => {
            adapter_unavailable()
        }
    };
    told.with_detail(error.to_string())
}

fn adapter_unavailable() -> Error {
    Error::new(ErrorKind::AdapterUnavailable, "The model's adapter cannot be loaded at the moment.")
        .with_retry_after(SOON)
}
