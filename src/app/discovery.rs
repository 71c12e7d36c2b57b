//! Workers that come and go: who is found is put into the pool, and who has
//! left is taken out of it.
//!
//! The one place that knows sources, drivers and the pool. Taking a worker out
//! interrupts nothing: what it runs holds it, and with the last of that it
//! ends, its driver and the driver's polling with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::config::{
    Config, DiscoverConfig, DnsName, KubernetesConfig, PortConfig, Scheme, SourceConfig, WorkerConfig,
};
use crate::gateway::Gateway;
use crate::pool::Worker;
use crate::telemetry::Metrics;
use crate::types::BaseName;
use crate::worker::discovery::{
    self, DnsConfig, Endpoint, Found, KubernetesConfig as Service, Question, ReadToken, ServicePort, Source,
};

use super::{DriverError, drivers, pooled};

/// After which a worker that could not be started is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long those who leave wait for newcomers to answer, so that there is
/// somebody at every moment.
const HANDOVER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Keeps the instances of one worker of the configuration in the pool, until
/// it is dropped; then they stay as they are.
pub(super) struct Follower {
    members: Members,
    source: String,
    found: watch::Receiver<Found>,
    _following: AbortOnDropHandle<()>,
}

#[derive(Clone, Default)]
struct Members {
    /// By where they are.
    now: Arc<Mutex<BTreeMap<Endpoint, Arc<Worker>>>>,
    /// Of a follower before.
    before: Arc<Mutex<Vec<Arc<Worker>>>>,
}

/// Which base models wait for workers to be found. Empty before it is known.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<Option<Watched>>>);

#[derive(Clone)]
struct Watched {
    gateway: Arc<Gateway>,
    /// That tenants' models stand on.
    bases: Vec<BaseName>,
    sources: Vec<(WorkerConfig, String, watch::Receiver<Found>)>,
}

// === impl Follower ===

impl Follower {
    /// `before` are instances of another follower: they leave when the source
    /// has answered for the first time.
    pub(super) fn start(
        source: Source,
        config: &Arc<Config>,
        worker: &WorkerConfig,
        gateway: &Arc<Gateway>,
        metrics: &Arc<Metrics>,
        before: Vec<Arc<Worker>>,
    ) -> Self {
        let (tell, found) = watch::channel(Found::default());
        let members = Members::default();
        *members.before() = before;
        let group = Group {
            config: config.clone(),
            worker: worker.clone(),
            gateway: gateway.clone(),
            metrics: metrics.clone(),
            members: members.clone(),
        };
        let (name, seen) = (source.to_string(), found.clone());
        let following = async move {
            tokio::select! {
                () = discovery::follow(source, tell) => {}
                () = group.keep(found) => {}
            }
        };
        let _following = AbortOnDropHandle::new(tokio::spawn(following));
        Self { members, source: name, found: seen, _following }
    }

    /// The instances in the pool, and those of a follower before that have not left yet.
    pub(super) fn members(&self) -> Vec<Arc<Worker>> {
        let now: Vec<_> = self.members.lock().values().cloned().collect();
        let before = self.members.before();
        now.into_iter().chain(before.iter().cloned()).collect()
    }
}

// === impl Members ===

impl Members {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Endpoint, Arc<Worker>>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn before(&self) -> MutexGuard<'_, Vec<Arc<Worker>>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn source(discover: &DiscoverConfig) -> Result<Source, DriverError> {
    match &discover.source {
        SourceConfig::Kubernetes(service) => Ok(Source::Kubernetes(kubernetes(service)?)),
        SourceConfig::Dns(dns) => {
            let question = match (&dns.name, discover.scheme) {
                (DnsName::Host { name, port }, _) => Question::Addresses { host: name.clone(), port: *port },
                (DnsName::Service(name), Scheme::Http) => Question::Service { name: name.clone() },
                (DnsName::Service(name), Scheme::Https) => Question::ServiceByName { name: name.clone() },
            };
            Ok(Source::Dns(DnsConfig { question, name_server: dns.resolver, interval: dns.interval }))
        }
    }
}

fn kubernetes(service: &KubernetesConfig) -> Result<Service, DriverError> {
    let found = service.locate().map_err(DriverError::Discovery)?;
    let port = match &service.port {
        PortConfig::Name(name) => ServicePort::Name(name.clone()),
        PortConfig::Number(number) => ServicePort::Number(*number),
    };
    Ok(Service {
        api: found.api,
        namespace: found.namespace,
        service: service.service.clone(),
        port,
        token: found.token.map(|token| -> ReadToken { Arc::new(move || token.read()) }),
        ca: found.ca,
    })
}

/// The instances of one worker of the configuration.
struct Group {
    config: Arc<Config>,
    worker: WorkerConfig,
    gateway: Arc<Gateway>,
    metrics: Arc<Metrics>,
    members: Members,
}

// === impl Group ===

impl Group {
    /// Keeps the pool's members to what is found.
    async fn keep(self, mut found: watch::Receiver<Found>) {
        let mut answered = false;
        loop {
            let now = {
                let found = found.borrow_and_update();
                // A source that has failed says nothing of who is there.
                answered |= found.problem.is_none() || !found.endpoints.is_empty();
                found.endpoints.clone()
            };
            let mut newcomers = Vec::new();
            let mut missing = false;
            let new: Vec<Endpoint> = {
                let members = self.members.lock();
                now.iter().filter(|endpoint| !members.contains_key(endpoint)).cloned().collect()
            };
            for endpoint in new {
                match self.add(endpoint).await {
                    Some(worker) => newcomers.push(worker),
                    None => missing = true,
                }
            }
            let gone: Vec<Endpoint> =
                self.members.lock().keys().filter(|member| !now.contains(member)).cloned().collect();
            let leaves = answered && !self.members.before().is_empty();
            if !gone.is_empty() || leaves {
                answering(&newcomers).await;
            }
            if leaves {
                let before = std::mem::take(&mut *self.members.before());
                self.gateway.pool().dismiss(&before);
            }
            gone.iter().for_each(|endpoint| self.remove(endpoint));
            drop(newcomers);

            tokio::select! {
                changed = found.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = tokio::time::sleep(RETRY), if missing => {}
            }
        }
    }

    /// `None` where its driver cannot be made now.
    async fn add(&self, endpoint: Endpoint) -> Option<Arc<Worker>> {
        let instance = self.worker.instance(&endpoint.to_string());
        let (config, described) = (self.config.clone(), instance.clone());
        // It reads the worker's key, which may be a file.
        let making = tokio::task::spawn_blocking(move || drivers::driver(&config, &described));
        let made = making.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let driver = match made {
            Ok(driver) => driver,
            Err(error) => {
                warn!(worker = instance.name, %error, "a worker that was found cannot be used");
                return None;
            }
        };
        let worker = pooled(&instance, driver, self.gateway.catalogue(), &self.metrics);
        // One of the follower before, of the same name, stays until this one answers.
        self.gateway.pool().join(std::slice::from_ref(&worker));
        info!(worker = instance.name, "a worker was found");
        self.members.lock().insert(endpoint, worker.clone());
        Some(worker)
    }

    fn remove(&self, endpoint: &Endpoint) {
        let member = self.members.lock().remove(endpoint);
        if let Some(worker) = member {
            self.gateway.pool().dismiss(std::slice::from_ref(&worker));
            info!(worker = &**worker.name(), "a worker has left");
        }
    }
}

/// Waits a moment for one of the newcomers to be well.
pub(super) async fn answering(newcomers: &[Arc<Worker>]) {
    let until = Instant::now() + HANDOVER;
    let well = || newcomers.iter().any(|worker| worker.status().unhealthy.is_none());
    while !newcomers.is_empty() && !well() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}

// === impl Waiting ===

impl Waiting {
    /// What is waited for from now on.
    pub(super) fn on<'a>(
        &self,
        gateway: &Arc<Gateway>,
        bases: Vec<BaseName>,
        followers: impl Iterator<Item = (&'a WorkerConfig, &'a Follower)>,
    ) {
        let source = |(worker, follower): (&WorkerConfig, &Follower)| {
            (worker.clone(), follower.source.clone(), follower.found.clone())
        };
        let watched = Watched { gateway: gateway.clone(), bases, sources: followers.map(source).collect() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(watched);
    }

    /// Why tenants' base models have no worker at all, where they are waited for.
    pub(super) fn reasons(&self) -> Vec<String> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Watched { gateway, bases, sources }) = watched else { return Vec::new() };
        let served = gateway.pool().bases();
        let mut reasons = Vec::new();
        for base in bases.iter().filter(|base| !served.contains(base)) {
            for (worker, source, found) in sources.iter().filter(|(worker, ..)| worker.bases.contains(base)) {
                let why = found.borrow().problem.clone();
                let why = why.unwrap_or_else(|| "nobody is there".to_owned());
                reasons.push(format!("{base}: no worker of {} was found yet ({source}): {why}", worker.name));
            }
        }
        reasons
    }
}
