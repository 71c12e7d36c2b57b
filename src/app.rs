//! The whole product in one process: the only place that knows every room.
//!
//! Configuration → rooms → listeners. What is wrong with the configuration or
//! with the files it names is found before anything is served.

mod resolve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{env, io};

use http::HeaderValue;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::config::{self, AdapterEntry, BaseConfig, Config, Cors, Loaded, Precision, Problems, WorkerConfig};
use crate::edge;
use crate::edge::http::{AllowOrigins, Coming, Readiness};
use crate::engine::files::{AdapterFiles, AdapterLimits, ModelConfig, ModelFiles};
use crate::engine::{self, kernels};
use crate::gateway::{Gateway, Live};
use crate::pool::{Pool, ResidencyConfig, Worker};
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::Metrics;
use crate::types::BaseName;
use crate::worker::{Driver, Embedded, EmbeddedConfig, EmbeddedError, ServedBase};
use resolve::Resolved;

/// Largest artifact that is read; a rank-64 adapter of all modules of an 8B model takes a third of it.
const MAX_ADAPTER_BYTES: u64 = 1 << 30;

/// How long a browser may remember what it may send from where.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// A running Tenantry.
pub struct App {
    addresses: Addresses,
    gateway: Arc<Gateway>,
    shutdown: Shutdown,
    drain_timeout: Duration,
    /// The tasks that accept connections, and the operators' connections.
    servers: TaskTracker,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub public: SocketAddr,
    pub ops: SocketAddr,
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("worker {worker}: {source}")]
    Worker { worker: String, source: EmbeddedError },
}

// === impl App ===

impl App {
    /// Loads the models and serves. Returns when requests are answered.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let Loaded { config, digests, .. } = loaded;
        let public = listen(config.server.listen).await?;
        let ops = listen(config.ops.listen).await?;
        let addresses = Addresses { public: public.address, ops: ops.address };
        let (shutdown, servers) = (Shutdown::default(), TaskTracker::new());
        let server = edge::server::Config {
            header_read_timeout: config.server.header_read_timeout,
            ..edge::server::Config::default()
        };
        let coming = Coming::default();
        serve_operators(ops, &server, coming.clone(), &shutdown, &servers);

        let metrics = Arc::new(Metrics::default());
        let drivers = match drivers(&config).await {
            Ok(drivers) => drivers,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let gateway = gateway(&config, config.resolve(&digests), drivers, metrics, &shutdown);
        // Nobody else sets it.
        let _ = coming.set(gateway.clone());
        let app = Self { addresses, gateway, shutdown, drain_timeout: config.shutdown.drain_timeout, servers };
        app.serve_tenants(public, server, &config);
        app.shutdown.running();
        info!(public = %addresses.public, ops = %addresses.ops, "serving");
        Ok(app)
    }

    fn serve_tenants(&self, public: Listener, server: edge::server::Config, config: &Config) {
        let grpc = edge::grpc::router(
            self.gateway.clone(),
            edge::grpc::Config { max_message_bytes: config.server.max_body_bytes },
            edge::grpc::Readiness { not_ready: self.not_ready(), draining: self.shutdown.drain.clone() },
        );
        let router = edge::http::public_router(self.gateway.clone(), http_config(config), grpc);
        let Shutdown { drain, kill, connections, .. } = self.shutdown.clone();
        self.servers.spawn(async move {
            edge::server::serve(public.listener, router, &server, drain, kill, &connections).await;
        });
    }

    fn not_ready(&self) -> Readiness {
        let (gateway, phase) = (self.gateway.clone(), phase_reasons(&self.shutdown));
        Arc::new(move || {
            let mut reasons = phase();
            reasons.extend(gateway.not_ready());
            reasons
        })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Lets running streams finish within the drain deadline, ends the rest,
    /// and returns when nothing runs any more.
    pub async fn drain(self) {
        self.shutdown.run(self.drain_timeout).await;
        self.servers.close();
        self.servers.wait().await;
    }
}

/// Operators want to see the start and the drain, so their listener is there first and stays to the end.
fn serve_operators(
    ops: Listener,
    server: &edge::server::Config,
    coming: Coming,
    shutdown: &Shutdown,
    servers: &TaskTracker,
) {
    let router = edge::http::ops_router(coming, phase_reasons(shutdown));
    let (kill, tasks, server) = (shutdown.kill.clone(), servers.clone(), server.clone());
    servers.spawn(async move {
        edge::server::serve(ops.listener, router, &server, kill.clone(), kill, &tasks).await;
    });
}

/// What keeps the process, apart from the gateway's workers, from serving.
fn phase_reasons(shutdown: &Shutdown) -> Readiness {
    let shutdown = shutdown.clone();
    Arc::new(move || match shutdown.phase() {
        Phase::Running => Vec::new(),
        phase => vec![format!("the server is {}", phase.as_str())],
    })
}

/// Loads the models, which takes seconds.
async fn drivers(config: &Config) -> Result<Vec<Arc<dyn Driver>>, StartError> {
    let config = config.clone();
    let loading = tokio::task::spawn_blocking(move || {
        config.workers.iter().map(|worker| driver(&config, worker)).collect::<Result<Vec<_>, _>>()
    });
    loading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Puts the rooms together around drivers that are ready.
fn gateway(
    config: &Config,
    resolved: Resolved,
    drivers: Vec<Arc<dyn Driver>>,
    metrics: Arc<Metrics>,
    shutdown: &Shutdown,
) -> Arc<Gateway> {
    let workers = config.workers.iter().zip(drivers).map(|(worker, driver)| {
        let residency = ResidencyConfig { adapter_bytes: worker.adapter_bytes };
        Worker::new(worker.name.as_str(), driver, residency, metrics.clone())
    });
    let pool = Pool::new(workers.collect(), resolved.catalogue);
    let live = Live::new(resolved.keyring, resolved.bases);
    Arc::new(Gateway::new(config.gateway.clone(), live, pool, metrics, shutdown.cut_off.clone()))
}

fn http_config(config: &Config) -> edge::http::Config {
    let allow_origins = match &config.server.cors {
        Cors::Off => None,
        Cors::Any => Some(AllowOrigins::Any),
        Cors::Origins(origins) => {
            let value = |origin: &String| HeaderValue::try_from(origin).expect("validated: visible ASCII");
            Some(AllowOrigins::List(origins.iter().map(value).collect()))
        }
    };
    edge::http::Config {
        max_body_bytes: config.server.max_body_bytes,
        body_read_timeout: config.server.body_read_timeout,
        hold: config.server.hold,
        cors: allow_origins.map(|allow_origins| edge::http::Cors { allow_origins, max_age: CORS_MAX_AGE }),
        demo_keys: config.demo_keys().map(|(_, key)| key.to_owned()).collect(),
    }
}

struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

async fn listen(address: SocketAddr) -> Result<Listener, StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Listener { listener, address })
}

/// Reads a configuration as every command does: the file, the environment, the
/// heads of the base models, and every adapter's artifact, which is checked
/// against its base. Tells all problems at once.
pub fn load(file: &Path) -> Result<Loaded, Problems> {
    config::load(file, env::vars_os(), Heads::default())
}

/// Looks into the files that a configuration names.
#[derive(Default)]
struct Heads {
    /// Of the base models that could be read.
    models: BTreeMap<BaseName, ModelConfig>,
}

impl config::Inspect for Heads {
    fn base(&mut self, base: &BaseConfig, config: &Config) -> Result<(), String> {
        let files = ModelFiles::open(&base.path).map_err(|error| error.to_string())?;
        if files.tokenizer().is_none() {
            return Err(format!("{}: has no tokenizer", base.path.display()));
        }
        self.models.insert(base.name.clone(), files.config().clone());
        for worker in config.workers.iter().filter(|worker| worker.bases.contains(&base.name)) {
            let precision = precision(worker.precision);
            engine::check(files.config(), precision, &engine_config(worker))
                .map_err(|error| format!("{}: worker {} cannot serve it: {error}", base.path.display(), worker.name))?;
        }
        Ok(())
    }

    fn adapter(
        &mut self,
        adapter: &AdapterEntry,
        base: &BaseConfig,
        config: &Config,
    ) -> Result<Option<String>, String> {
        // A base that cannot be read is a problem of its own.
        let Some(head) = self.models.get(&base.name) else { return Ok(None) };
        artifact_digest(config, adapter, base, head).map(Some)
    }
}

fn artifact_digest(
    config: &Config,
    entry: &AdapterEntry,
    base: &BaseConfig,
    head: &ModelConfig,
) -> Result<String, String> {
    let serving = config.workers.iter().filter(|worker| worker.bases.contains(&base.name));
    let max_rank = serving.map(|worker| worker.max_adapter_rank).min().unwrap_or(usize::MAX);
    let limits = AdapterLimits { max_rank, max_bytes: MAX_ADAPTER_BYTES };
    let mut names: Vec<&str> = base.source.iter().map(String::as_str).collect();
    names.push(base.name.as_str());
    let files = AdapterFiles::open(&entry.folder, head, &names, limits).map_err(|error| error.to_string())?;
    Ok(files.digest().to_owned())
}

fn precision(configured: Precision) -> kernels::Precision {
    match configured {
        Precision::Fast => kernels::Precision::Fast,
        Precision::Exact => kernels::Precision::Exact,
    }
}

fn engine_config(worker: &WorkerConfig) -> engine::Config {
    engine::Config {
        threads: worker.threads.map_or_else(|| engine::Config::default().threads, usize::from),
        max_batch_rows: worker.max_batch_rows,
        prefill_chunk: worker.prefill_chunk,
        queue: worker.queue,
        kv_bytes: worker.kv_bytes,
        context: worker.context,
    }
}

fn driver(config: &Config, worker: &WorkerConfig) -> Result<Arc<dyn Driver>, StartError> {
    let embedded = EmbeddedConfig {
        precision: precision(worker.precision),
        engine: engine_config(worker),
        adapters: AdapterLimits { max_rank: worker.max_adapter_rank, max_bytes: MAX_ADAPTER_BYTES },
        // The pool keeps to it.
        adapter_bytes: None,
        memory_bytes: None,
    };
    let served = config.bases.iter().filter(|base| worker.bases.contains(&base.name));
    let bases = served.map(|base| ServedBase {
        name: base.name.clone(),
        path: base.path.clone(),
        also_known_as: base.source.clone(),
    });
    let driver = Embedded::start(&embedded, bases.collect())
        .map_err(|source| StartError::Worker { worker: worker.name.clone(), source })?;
    Ok(Arc::new(driver))
}
