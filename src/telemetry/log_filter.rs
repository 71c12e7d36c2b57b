//! What of the log is written, and changing that while the process runs.

use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The process's one log.
static LOG: Mutex<Option<Log>> = Mutex::new(None);

struct Log {
    filter: String,
    set: Box<dyn Fn(EnvFilter) -> bool + Send>,
}

/// This process's log was not set up here, as in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the log of this process is not Tenantry's own")]
pub struct NoLog;

/// To be called where the log is set up; `set` puts another filter in place.
pub(super) fn register(filter: &str, set: impl Fn(EnvFilter) -> bool + Send + 'static) {
    *lock() = Some(Log { filter: filter.to_owned(), set: Box::new(set) });
}

/// The filter in use; `None` where the log was not set up here.
pub fn log_filter() -> Option<String> {
    lock().as_ref().map(|log| log.filter.clone())
}

/// Goes by another filter from now on; one that was checked.
pub fn set_log_filter(filter: &str) -> Result<(), NoLog> {
    let mut log = lock();
    let log = log.as_mut().ok_or(NoLog)?;
    match (log.set)(EnvFilter::builder().parse_lossy(filter)) {
        true => filter.clone_into(&mut log.filter),
        false => return Err(NoLog),
    }
    Ok(())
}

fn lock() -> std::sync::MutexGuard<'static, Option<Log>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}
