//! Workers that come and go.

mod api_server;
mod dns;
mod kubernetes;
mod serving;

use std::collections::BTreeSet;
use std::time::Duration;

use tenantry::worker::discovery::{self, Found, Source};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A source that is followed.
struct Followed {
    found: watch::Receiver<Found>,
    _following: AbortOnDropHandle<()>,
}

// === impl Followed ===

impl Followed {
    fn start(source: Source) -> Self {
        let (tell, found) = watch::channel(Found::default());
        Self { found, _following: AbortOnDropHandle::new(tokio::spawn(discovery::follow(source, tell))) }
    }

    /// Waits until exactly these are known and nothing is wrong.
    async fn are(&mut self, endpoints: &[&str]) {
        let wanted: BTreeSet<String> = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        self.until(|found| names(found) == wanted && found.problem.is_none(), &format!("{endpoints:?}")).await;
    }

    /// Waits until something is wrong, and tells what.
    async fn problem(&mut self) -> String {
        // What is said at the start, before anything was asked, is none of it.
        let first = Found::default().problem;
        self.until(|found| found.problem.is_some() && found.problem != first, "a problem").await;
        self.found.borrow().problem.clone().expect("waited for")
    }

    fn now(&self) -> BTreeSet<String> {
        names(&self.found.borrow())
    }

    async fn until(&mut self, wanted: impl Fn(&Found) -> bool, what: &str) {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.found.wait_for(wanted)).await;
        let reached = matches!(waited, Ok(Ok(_)));
        drop(waited);
        assert!(reached, "{what} did not come, but {:?}", self.found.borrow());
    }
}

fn names(found: &Found) -> BTreeSet<String> {
    found.endpoints.iter().map(ToString::to_string).collect()
}
