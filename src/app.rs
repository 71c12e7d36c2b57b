//! The whole product in one process: the only place that knows every room.
//!
//! Configuration → rooms → listeners. What is wrong with the configuration or
//! with the files it names is found before anything is served.

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

use crate::config::{
    self, AdapterEntry, BaseConfig, Config, Cors, Loaded, Precision, Problems, Resolved, WorkerConfig,
};
use crate::edge;
use crate::edge::http::AllowOrigins;
use crate::engine::files::{AdapterFiles, AdapterLimits, ModelConfig, ModelFiles};
use crate::engine::{self, kernels};
use crate::gateway::{Gateway, Live};
use crate::pool::{Pool, ResidencyConfig, Worker};
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::Metrics;
use crate::worker::{Driver, Embedded, EmbeddedConfig, EmbeddedError, ServedBase};

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
        let metrics = Arc::new(Metrics::default());
        // Models are read and packed for seconds.
        let loading = config.clone();
        let drivers = tokio::task::spawn_blocking(move || {
            loading.workers.iter().map(|worker| driver(&loading, worker)).collect::<Result<Vec<_>, _>>()
        })
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        Ok(Self::serve(&config, config.resolve(&digests), drivers, metrics, public, ops))
    }

    /// Puts the rooms together around drivers that are ready.
    fn serve(
        config: &Config,
        resolved: Resolved,
        drivers: Vec<Arc<dyn Driver>>,
        metrics: Arc<Metrics>,
        public: Listener,
        ops: Listener,
    ) -> Self {
        let shutdown = Shutdown::default();
        let workers = config.workers.iter().zip(drivers).map(|(worker, driver)| {
            let residency = ResidencyConfig { adapter_bytes: worker.adapter_bytes };
            Worker::new(worker.name.as_str(), driver, residency, metrics.clone())
        });
        let pool = Pool::new(workers.collect(), resolved.catalogue);
        let live = Live::new(resolved.keyring, resolved.bases);
        let gateway = Arc::new(Gateway::new(config.gateway.clone(), live, pool, metrics, shutdown.cut_off.clone()));
        let servers = TaskTracker::new();
        let app = Self {
            addresses: Addresses { public: public.address, ops: ops.address },
            gateway,
            shutdown,
            drain_timeout: config.shutdown.drain_timeout,
            servers,
        };
        app.spawn_servers(config, public, ops);
        app.shutdown.running();
        info!(public = %app.addresses.public, ops = %app.addresses.ops, "serving");
        app
    }

    /// Accepts clients and operators.
    fn spawn_servers(&self, config: &Config, public: Listener, ops: Listener) {
        let server = edge::server::Config {
            header_read_timeout: config.server.header_read_timeout,
            ..edge::server::Config::default()
        };
        let grpc = edge::grpc::router(
            self.gateway.clone(),
            edge::grpc::Config { max_message_bytes: config.server.max_body_bytes },
            edge::grpc::Readiness { not_ready: self.not_ready(), draining: self.shutdown.drain.clone() },
        );
        let router = edge::http::public_router(self.gateway.clone(), http_config(config), grpc);
        let Shutdown { drain, kill, connections, .. } = self.shutdown.clone();
        let public_server = server.clone();
        self.servers.spawn(async move {
            edge::server::serve(public.listener, router, &public_server, drain, kill, &connections).await;
        });
        // Operators want to see the drain, so their listener stays to the end.
        let router = edge::http::ops_router(self.gateway.clone(), self.phase_reasons());
        let (kill, tasks) = (self.shutdown.kill.clone(), self.servers.clone());
        self.servers.spawn(async move {
            edge::server::serve(ops.listener, router, &server, kill.clone(), kill, &tasks).await;
        });
    }

    /// What keeps the process, apart from the gateway's workers, from serving.
    fn phase_reasons(&self) -> edge::http::Readiness {
        let shutdown = self.shutdown.clone();
        Arc::new(move || match shutdown.phase() {
            Phase::Running => Vec::new(),
            phase => vec![format!("the server is {}", phase.as_str())],
        })
    }

    fn not_ready(&self) -> edge::http::Readiness {
        let (gateway, phase) = (self.gateway.clone(), self.phase_reasons());
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

/// Reads a configuration as every command does: the file, the environment, and
/// every adapter's artifact, which is checked against the head of the base
/// model it is for. Tells all problems at once.
pub fn load(file: &Path) -> Result<Loaded, Problems> {
    let mut heads = BTreeMap::new();
    config::load(file, env::vars_os(), |adapter, base, config| {
        let head = heads
            .entry(base.name.clone())
            .or_insert_with(|| ModelFiles::open(&base.path).map(|files| files.config().clone()));
        match head {
            Ok(head) => artifact_digest(config, adapter, base, head),
            Err(error) => Err(format!("cannot be checked, since its base model cannot be read: {error}")),
        }
    })
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

fn driver(config: &Config, worker: &WorkerConfig) -> Result<Arc<dyn Driver>, StartError> {
    let embedded = EmbeddedConfig {
        precision: match worker.precision {
            Precision::Fast => kernels::Precision::Fast,
            Precision::Exact => kernels::Precision::Exact,
        },
        engine: engine::Config {
            threads: worker.threads.map_or_else(|| engine::Config::default().threads, usize::from),
            max_batch_rows: worker.max_batch_rows,
            prefill_chunk: worker.prefill_chunk,
            queue: worker.queue,
            kv_bytes: worker.kv_bytes,
            context: worker.context,
        },
        adapters: AdapterLimits { max_rank: worker.max_adapter_rank, max_bytes: MAX_ADAPTER_BYTES },
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
