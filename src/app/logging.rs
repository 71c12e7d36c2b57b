//! What of the log is written: what the configuration says, or for a time what
//! an operator has set in its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::edge::http::LogFilter;
use crate::telemetry::{NoLog, log_filter, set_log_filter};

/// Clones are the same.
#[derive(Clone)]
pub(super) struct Logging(Arc<Mutex<State>>);

struct State {
    configured: String,
    set: Option<Set>,
    /// Filters that were set.
    count: u64,
}

/// By an operator.
struct Set {
    until: Option<SystemTime>,
    /// Goes back to the configuration's.
    _ending: Option<AbortOnDropHandle<()>>,
    number: u64,
}

// === impl Logging ===

impl Logging {
    pub(super) fn new(configured: &str) -> Self {
        Self(Arc::new(Mutex::new(State { configured: configured.to_owned(), set: None, count: 0 })))
    }

    /// The configuration has another filter; it holds when an operator's does not.
    pub(super) fn configured(&self, filter: &str) {
        let mut state = self.lock();
        if state.configured != filter {
            filter.clone_into(&mut state.configured);
            if state.set.is_none() {
                // Where the log is not ours there is nothing to be done.
                let _ = set_log_filter(filter);
            }
        }
    }

    pub(super) fn now(&self) -> LogFilter {
        let state = self.lock();
        let until = state.set.as_ref().and_then(|set| set.until);
        let until = until.and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok());
        LogFilter {
            filter: log_filter().unwrap_or_else(|| state.configured.clone()),
            configured: state.configured.clone(),
            set: state.set.is_some(),
            until: until.map(|since| since.as_secs()),
        }
    }

    /// Goes by another filter, for so long or until it is set back; one that was checked.
    pub(super) fn set(&self, filter: &str, lasting: Option<Duration>) -> Result<(), NoLog> {
        let mut state = self.lock();
        set_log_filter(filter)?;
        state.count += 1;
        let number = state.count;
        let ending = lasting.map(|lasting| {
            let logging = self.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep(lasting).await;
                logging.end(number);
            }))
        });
        let until = lasting.map(|lasting| SystemTime::now() + lasting);
        state.set = Some(Set { until, _ending: ending, number });
        Ok(())
    }

    /// Goes by the configuration's filter again.
    pub(super) fn reset(&self) -> Result<(), NoLog> {
        let mut state = self.lock();
        set_log_filter(&state.configured)?;
        state.set = None;
        Ok(())
    }

    fn end(&self, number: u64) {
        let mut state = self.lock();
        if state.set.as_ref().is_none_or(|set| set.number != number) {
            return;
        }
        let _ = set_log_filter(&state.configured);
        // Not dropped here: this runs in its task.
        let ended = state.set.take();
        drop(state);
        info!("the log's filter is the configuration's again");
        drop(ended);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
