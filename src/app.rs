//! The whole product in one process: the only place that knows every room.
//!
//! Configuration → rooms → listeners. What is wrong with the configuration or
//! with the files it names is found before anything is served.

mod catalogue;
mod discovery;
mod drivers;
mod fleet;
mod guard;
mod inspect;
mod logging;
mod ratings;
mod reload;
mod resolve;
mod traces;
mod worker_process;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tenantry_ratings::Background;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::adapters::{Catalogue, OpenError};
use crate::admission::{Admission, Sharing};
use crate::config::{Config, Cors, Digests, Loaded, WorkerConfig};
use crate::edge;
use crate::edge::http::{AllowOrigins, Coming, Readiness, Steering};
use crate::gateway::{Gateway, Live};
use crate::pool::{self, Pool, ResidencyConfig, Worker};
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::Metrics;
use crate::worker::{Driver, EmbeddedError, GrpcError, UrlError};
use catalogue::Bases;
use discovery::Waiting;
use fleet::Fleet;
use logging::Logging;
use reload::{Parts, Reloader, Trigger};

pub use inspect::{load, load_worker};
pub use worker_process::WorkerApp;

/// How long a browser may remember what it may send from where.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// The longest that the end waits for the database.
const FLUSH: Duration = Duration::from_secs(5);

/// A running Tenantry.
pub struct App {
    addresses: Addresses,
    gateway: Arc<Gateway>,
    shutdown: Shutdown,
    drain_timeout: Duration,
    /// The tasks that accept connections, and the operators' connections.
    servers: TaskTracker,
    waiting: Waiting,
    /// Keeps adapters placed.
    placing: AbortOnDropHandle<()>,
    /// Keeps up with limits and what other gateways use of them.
    limiting: AbortOnDropHandle<()>,
    /// Writes ratings and events down, and ships them.
    shipping: Option<Shipping>,
    reloader: Reloader,
    /// Looks for changes of the configuration's file.
    watching: Option<AbortOnDropHandle<()>>,
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
    Worker { worker: String, source: DriverError },
    #[error("catalogue: {0}")]
    Catalogue(#[from] OpenError),
    #[error("catalogue: {0}")]
    Secret(String),
    #[error("guard: {0}")]
    Guard(String),
    #[error("ratings: {0}")]
    Ratings(String),
    #[error("traces: {0}")]
    Traces(String),
    #[error("redis: {0}")]
    Redis(String),
}

/// Why a worker's driver could not be made.
#[derive(Debug, Error)]
pub enum DriverError {
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("key: {0}")]
    Key(String),
    #[error("discover: {0}")]
    Discovery(String),
}

// === impl App ===

impl App {
    /// Loads the models and serves. Returns when requests are answered.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let Loaded { file, read, config, digests, .. } = loaded;
        let public = listen(config.server.listen).await?;
        let ops = listen(config.ops.listen).await?;
        let addresses = Addresses { public: public.address, ops: ops.address };
        let (shutdown, servers) = (Shutdown::default(), TaskTracker::new());
        let server = edge::server::Config {
            header_read_timeout: config.server.header_read_timeout,
            ..edge::server::Config::default()
        };
        let coming = Coming::default();
        let steering = Steering::default();
        let admin = edge::http::Admin {
            key: config.ops.admin_key.clone().map(|key| edge::http::AdminKey { hash: key.hash, name: key.name }),
            loopback: addresses.ops.ip().is_loopback(),
            steering: steering.clone(),
        };
        let waiting = Waiting::default();
        serve_operators(ops, &server, coming.clone(), admin, reasons(&shutdown, &waiting), &shutdown, &servers);

        let traces = match traces::open(&config) {
            Ok(traces) => traces,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let metrics = Arc::new(Metrics::new(config.metrics, traces));
        let started = Self::put_together(&config, &digests, &metrics, &waiting, &shutdown).await;
        let Started { parts, shipping } = match started {
            Ok(started) => started,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let gateway = parts.gateway.clone();
        if let Err(error) = gateway.learn_budgets().await {
            warn!(%error, "budgets begin without what was used of them before");
        }
        let placing = gateway.clone();
        let placing = AbortOnDropHandle::new(tokio::spawn(async move { placing.keep_placed().await }));
        let limiting = gateway.clone();
        let limiting = AbortOnDropHandle::new(tokio::spawn(async move { limiting.keep_limits().await }));
        let drain_timeout = config.shutdown.drain_timeout;
        let reloader = Reloader::new(file, config.clone(), parts);
        // Nobody else sets them.
        let _ = (coming.set(gateway.clone()), steering.set(Arc::new(reloader.clone())));
        let app = Self {
            addresses,
            gateway,
            shutdown,
            drain_timeout,
            servers,
            waiting,
            placing,
            limiting,
            shipping: shipping.map(Shipping::start),
            watching: reloader.watch(read),
            reloader,
        };
        app.serve_tenants(public, server, &config);
        app.shutdown.running();
        info!(public = %addresses.public, ops = %addresses.ops, "serving");
        Ok(app)
    }

    /// Everything that may go wrong before anybody is served.
    async fn put_together(
        config: &Config,
        digests: &Digests,
        metrics: &Arc<Metrics>,
        waiting: &Waiting,
        shutdown: &Shutdown,
    ) -> Result<Started, StartError> {
        let shared = Arc::new(config.clone());
        let mut fleet = Fleet::default();
        let prepared = fleet.prepare(&shared).await?;
        let resolved = config.resolve(digests);
        let bases = Arc::new(Bases::of(config));
        let catalogue = catalogue::open(config, resolved.adapters.clone(), &bases, metrics.clone()).await?;
        let sharing = sharing(config, metrics)?;
        let (rated, shipping) = ratings::open(config).await?.unzip();
        let pool = Arc::new(Pool::new(Vec::new(), catalogue, metrics.clone()));
        let (guard, judges) = guard::guard(config, &pool, metrics.clone())?;
        let live = Live::new(resolved.keyring, resolved.bases.clone()).guarded(config.policies());
        let live = live.rating(ratings::policies(config));
        let admission = Admission::new(config.gateway.admission.clone()).sharing(sharing);
        let cut_off = shutdown.cut_off.clone();
        let gateway = Gateway::new(config.gateway.clone(), live, admission, pool, metrics.clone(), cut_off);
        let gateway = Arc::new(gateway.guarded(guard.clone()).rating(rated));
        fleet.change(prepared, &shared, &gateway, metrics);
        waiting.on(&gateway, resolved.bases, fleet.followers());
        let parts = Parts {
            gateway,
            metrics: metrics.clone(),
            bases,
            waiting: waiting.clone(),
            guard,
            judges,
            fleet,
            artifacts: resolved.adapters,
            logging: Logging::new(&config.log.filter),
        };
        Ok(Started { parts, shipping })
    }

    /// Reads the configuration again, as SIGHUP asks for.
    pub async fn reload(&self) {
        self.reloader.reload(Trigger::Signal).await;
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
        let (gateway, phase) = (self.gateway.clone(), reasons(&self.shutdown, &self.waiting));
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
        // Nothing is loaded any more but what requests ask for.
        drop((self.placing, self.watching));
        // What still runs counts at the other gateways.
        self.shutdown.run(self.drain_timeout).await;
        drop(self.limiting);
        self.reloader.stop().await;
        if !matches!(tokio::time::timeout(FLUSH, self.gateway.flush_usage()).await, Ok(Ok(()))) {
            warn!("the catalogue's database is away: not all usage was written down");
        }
        let _ = tokio::time::timeout(FLUSH, self.gateway.flush_key_uses()).await;
        self.gateway.leave().await;
        if let Some(shipping) = self.shipping {
            shipping.stop().await;
        }
        self.servers.close();
        self.servers.wait().await;
        traces::close(&self.gateway).await;
    }
}

/// Operators want to see the start and the drain, so their listener is there first and stays to the end.
fn serve_operators(
    ops: Listener,
    server: &edge::server::Config,
    coming: Coming,
    admin: edge::http::Admin,
    readiness: Readiness,
    shutdown: &Shutdown,
    servers: &TaskTracker,
) {
    let router = edge::http::ops_router(coming, admin, readiness);
    let (kill, tasks, server) = (shutdown.kill.clone(), servers.clone(), server.clone());
    servers.spawn(async move {
        edge::server::serve(ops.listener, router, &server, kill.clone(), kill, &tasks).await;
    });
}

/// What keeps the process, apart from the gateway's workers, from serving.
fn reasons(shutdown: &Shutdown, waiting: &Waiting) -> Readiness {
    let (shutdown, waiting) = (shutdown.clone(), waiting.clone());
    Arc::new(move || match shutdown.phase() {
        Phase::Running => waiting.reasons(),
        phase => vec![format!("the server is {}", phase.as_str())],
    })
}

/// What was put together at the start.
struct Started {
    parts: Parts,
    shipping: Option<Background>,
}

/// What writes ratings and events down beside the requests.
struct Shipping {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Shipping {
    fn start(background: Background) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move { background.run(stopped.cancelled_owned()).await });
        Self { stop, running }
    }

    /// Returns when all is written, and sinks have had their time.
    async fn stop(self) {
        self.stop.cancel();
        if self.running.await.is_err() {
            warn!("writing events down panicked");
        }
    }
}

/// Where limits are shared with other gateways.
fn sharing(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<Sharing>>, StartError> {
    let Some(redis) = &config.redis else { return Ok(None) };
    let url = redis.url.read().map_err(StartError::Redis)?;
    let sharing = Sharing::new(&url, &redis.prefix, redis.gateways, metrics.clone());
    sharing.map(|sharing| Some(Arc::new(sharing))).map_err(|error| StartError::Redis(error.to_string()))
}

/// A worker of the configuration, or an instance of one, as the pool has it.
fn pooled(
    worker: &WorkerConfig,
    driver: Arc<dyn Driver>,
    catalogue: &Arc<Catalogue>,
    metrics: &Arc<Metrics>,
) -> Arc<Worker> {
    let residency = ResidencyConfig { adapter_bytes: worker.adapter_bytes, adapter_slots: worker.adapter_slots };
    let config = pool::WorkerConfig { residency, slots: worker.slots };
    Worker::new(worker.name.as_str(), driver, config, catalogue.clone(), metrics.clone())
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
