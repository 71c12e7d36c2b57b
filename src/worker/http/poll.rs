//! Asking a worker how it is, again and again, for a status that is at hand
//! without waiting.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::client::{Client, ClientError};
use super::upstream::MAX_ANSWER;
use crate::worker::Status;

/// The longest that one look may take.
const LOOK: Duration = Duration::from_secs(5);
/// Looks that may fail, other than by a refused connection, before a worker is
/// taken for lost: a busy machine answers late.
const MISSES: u32 = 3;

/// What was seen last. Looking ends when this is dropped.
pub(super) struct Watch {
    status: Arc<RwLock<Status>>,
    _looking: AbortOnDropHandle<()>,
}

/// Why a look failed.
pub(super) enum Lost {
    /// Certainly not there.
    Gone(String),
    /// Perhaps only late.
    Late(String),
}

// === impl Watch ===

impl Watch {
    /// Called inside a Tokio runtime. `look` is asked for the worker's status.
    pub(super) fn start<F, L>(url: String, interval: Duration, mut look: L) -> Self
    where
        F: Future<Output = Result<Status, Lost>> + Send,
        L: FnMut() -> F + Send + 'static,
    {
        let unseen = Status { unhealthy: Some("it has not answered yet".to_owned()), ..Status::default() };
        let status = Arc::new(RwLock::new(unseen));
        let shared = status.clone();
        let looking = tokio::spawn(async move {
            let mut missed = 0;
            loop {
                let seen = tokio::time::timeout(LOOK, look()).await;
                let seen = seen.unwrap_or_else(|_| Err(Lost::Late("it does not say in time how it is".to_owned())));
                missed = if matches!(seen, Err(Lost::Late(_))) { missed + 1 } else { 0 };
                let seen = match seen {
                    Ok(seen) => Some(seen),
                    Err(Lost::Late(_)) if missed < MISSES => None,
                    Err(Lost::Gone(why) | Lost::Late(why)) => {
                        Some(Status { unhealthy: Some(why), ..Status::default() })
                    }
                };
                if let Some(seen) = seen {
                    let mut status = shared.write().unwrap_or_else(PoisonError::into_inner);
                    match (&status.unhealthy, &seen.unhealthy) {
                        (Some(_), None) => info!(worker = url, "the worker is there"),
                        (None, Some(why)) => warn!(worker = url, why, "the worker is lost"),
                        _ => {}
                    }
                    *status = seen;
                }
                tokio::time::sleep(interval).await;
            }
        });
        Self { status, _looking: AbortOnDropHandle::new(looking) }
    }

    pub(super) fn status(&self) -> Status {
        self.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<ClientError> for Lost {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect(_) => Self::Gone(error.to_string()),
            _ => Self::Late(error.to_string()),
        }
    }
}

/// The text of an answer with status 200.
pub(super) async fn text(client: &Arc<Client>, path: &str) -> Result<(http::HeaderMap, String), Lost> {
    let mut response = client.get(path).await?;
    let (status, headers) = (response.status, std::mem::take(&mut response.headers));
    let body = response.bytes(MAX_ANSWER).await?;
    if status != http::StatusCode::OK {
        return Err(Lost::Gone(format!("{path} answers {}", status.as_u16())));
    }
    Ok((headers, String::from_utf8_lossy(&body).into_owned()))
}

/// The sum of a gauge's or counter's series in Prometheus' text.
pub(super) fn metric(text: &str, name: &str) -> Option<f64> {
    series(text, name).fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// The values of a metric's series.
pub(super) fn series(text: &str, name: &str) -> impl Iterator<Item = f64> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        rest.strip_prefix(' ')?.split_ascii_whitespace().next()?.parse::<f64>().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_its_series_and_of_no_other_name() {
        let text = "# HELP a x\na{x=\"}1\",y=\"2\"} 1.5\na{x=\"2\"} 2e0 1700000000\nab 7\nb 3\n";
        assert_eq!(metric(text, "a"), Some(3.5));
        assert_eq!(metric(text, "b"), Some(3.0));
        assert_eq!(metric(text, "c"), None);
    }
}
