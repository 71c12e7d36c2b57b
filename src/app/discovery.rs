//! Workers that come and go: who is found is put into the pool, and who has
//! left is taken out of it.
//!
//! The one place that knows sources, drivers and the pool. Taking a worker out
//! interrupts nothing: what it runs holds it, and with the last of that it
//! ends, its driver and the driver's polling with it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
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

use super::{DriverError, StartError, drivers, pooled};

/// After which a worker that could not be started is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long those who leave wait for newcomers to answer, so that there is
/// somebody at every moment.
const HANDOVER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// The followers, each of which ends when its handle is dropped.
pub(super) type Followers = Vec<AbortOnDropHandle<()>>;

/// Which base models wait for workers to be found. Empty before the followers
/// are there.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<OnceLock<Watched>>);

struct Watched {
    gateway: Arc<Gateway>,
    /// That tenants' models stand on.
    bases: Vec<BaseName>,
    sources: Vec<(WorkerConfig, String, watch::Receiver<Found>)>,
}

/// Follows the sources of all workers that are discovered.
pub(super) fn follow(
    config: &Config,
    bases: Vec<BaseName>,
    gateway: &Arc<Gateway>,
    metrics: &Arc<Metrics>,
    waiting: &Waiting,
) -> Result<Followers, StartError> {
    let shared = Arc::new(config.clone());
    let (mut followers, mut sources) = (Vec::new(), Vec::new());
    for worker in &config.workers {
        let Some(discover) = worker.discover() else { continue };
        let failed = |source| StartError::Worker { worker: worker.name.clone(), source };
        let source = source(discover).map_err(failed)?;
        let (tell, found) = watch::channel(Found::default());
        sources.push((worker.clone(), source.to_string(), found.clone()));
        let group = Group {
            config: shared.clone(),
            worker: worker.clone(),
            gateway: gateway.clone(),
            metrics: metrics.clone(),
            members: BTreeMap::new(),
        };
        let following = async move {
            tokio::select! {
                () = discovery::follow(source, tell) => {}
                () = group.keep(found) => {}
            }
        };
        followers.push(AbortOnDropHandle::new(tokio::spawn(following)));
    }
    // Nobody else sets it.
    let _ = waiting.0.set(Watched { gateway: gateway.clone(), bases, sources });
    Ok(followers)
}

fn source(discover: &DiscoverConfig) -> Result<Source, DriverError> {
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
    /// Names in the pool.
    members: BTreeMap<Endpoint, String>,
}

// === impl Group ===

impl Group {
    /// Keeps the pool's members to what is found.
    async fn keep(mut self, mut found: watch::Receiver<Found>) {
        loop {
            let now = found.borrow_and_update().endpoints.clone();
            let mut newcomers = Vec::new();
            let mut missing = false;
            for endpoint in
                now.iter().filter(|endpoint| !self.members.contains_key(endpoint)).cloned().collect::<Vec<_>>()
            {
                match self.add(endpoint).await {
                    Some(worker) => newcomers.push(worker),
                    None => missing = true,
                }
            }
            let gone: Vec<Endpoint> = self.members.keys().filter(|member| !now.contains(member)).cloned().collect();
            if !gone.is_empty() {
                answering(&newcomers).await;
            }
            gone.iter().for_each(|endpoint| self.remove(endpoint));
            drop(newcomers);

            tokio::select! {
                changed = found.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if missing => {}
            }
        }
    }

    /// `None` where its driver cannot be made now.
    async fn add(&mut self, endpoint: Endpoint) -> Option<Arc<Worker>> {
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
        self.gateway.pool().add(&worker);
        info!(worker = instance.name, "a worker was found");
        self.members.insert(endpoint, instance.name);
        Some(worker)
    }

    fn remove(&mut self, endpoint: &Endpoint) {
        if let Some(name) = self.members.remove(endpoint) {
            self.gateway.pool().remove(&name);
            info!(worker = name, "a worker has left");
        }
    }
}

/// Waits a moment for one of the newcomers to be well.
async fn answering(newcomers: &[Arc<Worker>]) {
    let until = Instant::now() + HANDOVER;
    let well = || newcomers.iter().any(|worker| worker.status().unhealthy.is_none());
    while !newcomers.is_empty() && !well() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}

// === impl Waiting ===

impl Waiting {
    /// Why tenants' base models have no worker at all, where they are waited for.
    pub(super) fn reasons(&self) -> Vec<String> {
        let Some(Watched { gateway, bases, sources }) = self.0.get() else { return Vec::new() };
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
