//! Where a service's workers are: one question asked again and again, whose
//! latest answer is at hand without waiting.
//!
//! A source tells addresses; it starts no worker, judges none and ends none.
//! An answer that says that nobody is there is believed. A question that gets
//! no answer changes nothing: what was known stays, one warning says so, and
//! the question is asked again with growing pauses.

mod backoff;
mod dns;
mod kubernetes;
mod slices;

use std::collections::BTreeSet;
use std::fmt;

use tokio::sync::watch;
use tracing::{info, warn};

pub use dns::{Config as DnsConfig, Question};
pub use kubernetes::{Config as KubernetesConfig, ReadToken};
pub use slices::ServicePort;

/// Who is asked, and for what.
#[derive(Clone)]
pub enum Source {
    Dns(DnsConfig),
    Kubernetes(KubernetesConfig),
}

/// Where one worker listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// An IP address, or a name where certificates are held against it.
    pub host: String,
    pub port: u16,
}

/// What is known at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub endpoints: BTreeSet<Endpoint>,
    /// Why that may be out of date, or incomplete.
    pub problem: Option<String>,
}

/// Keeps [`Found`] up to date. Never returns.
pub async fn follow(source: Source, found: watch::Sender<Found>) {
    let source_name = source.to_string();
    let report = Report { found, source: source_name, warned: false };
    match source {
        Source::Dns(config) => dns::follow(config, report).await,
        Source::Kubernetes(config) => kubernetes::follow(config, report).await,
    }
}

/// Where a source puts what it learns.
struct Report {
    found: watch::Sender<Found>,
    source: String,
    /// That something is wrong is said once, and once that it is well again.
    warned: bool,
}

// === impl Report ===

impl Report {
    /// What is there now, with what could not be asked.
    fn tell(&mut self, endpoints: BTreeSet<Endpoint>, problem: Option<String>) {
        self.log(problem.as_deref());
        self.found.send_if_modified(|found| {
            let now = Found { endpoints, problem };
            let changed = *found != now;
            *found = now;
            changed
        });
    }

    /// What is there now, where it is still to be seen whether what was wrong
    /// is well again.
    fn tell_for_now(&mut self, endpoints: BTreeSet<Endpoint>) {
        let problem = self.found.borrow().problem.clone().filter(|_| self.warned);
        self.tell(endpoints, problem);
    }

    /// Nothing was learnt; what was known stays.
    fn failed(&mut self, problem: String) {
        let endpoints = self.found.borrow().endpoints.clone();
        self.tell(endpoints, Some(problem));
    }

    fn log(&mut self, problem: Option<&str>) {
        match problem {
            Some(problem) if !self.warned => {
                warn!(source = self.source, problem, "workers cannot be looked up; those that were known stay");
            }
            None if self.warned => info!(source = self.source, "workers can be looked up again"),
            _ => {}
        }
        self.warned = problem.is_some();
    }
}

// === impl Found ===

impl Default for Found {
    fn default() -> Self {
        Self { endpoints: BTreeSet::new(), problem: Some("there is no answer yet".to_owned()) }
    }
}

// === impl Endpoint ===

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(config) => config.question.fmt(f),
            Self::Kubernetes(config) => write!(f, "service {}/{}", config.namespace, config.service),
        }
    }
}
