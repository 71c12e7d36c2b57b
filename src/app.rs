//! The whole product in one process: the only place that knows every room.
//!
//! Configuration → rooms → listeners. What is wrong with the configuration or
//! with the files it names is found before anything is served.

mod catalogue;
mod discovery;
mod drivers;
mod guard;
mod inspect;
mod ratings;
mod resolve;
mod traces;
mod worker_process;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tenantry_ratings::{Background, Ratings};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::adapters::{Catalogue, OpenError};
use crate::admission::{Admission, Sharing};
use crate::config::{Config, Cors, Loaded, WorkerConfig};
use crate::edge;
use crate::edge::http::{AllowOrigins, Coming, Readiness};
use crate::gateway::{Gateway, Live};
use crate::pool::{self, Pool, ResidencyConfig, Worker};
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::Metrics;
use crate::worker::{Driver, EmbeddedError, GrpcError, UrlError};
use discovery::{Followers, Waiting};
use resolve::Resolved;

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
    logging: Option<Logging>,
    /// Add and remove workers that come and go.
    _followers: Followers,
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
        let admin = edge::http::Admin { key: config.ops.admin_key, loopback: addresses.ops.ip().is_loopback() };
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
        let drivers = match drivers::start(&config).await {
            Ok(drivers) => drivers,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let resolved = config.resolve(&digests);
        let opened = catalogue::open(&config, resolved.adapters.clone(), metrics.clone()).await;
        let catalogue = match opened {
            Ok(catalogue) => catalogue,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let bases = resolved.bases.clone();
        let sharing = match sharing(&config, &metrics) {
            Ok(sharing) => sharing,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let (rated, logging) = match ratings::open(&config).await {
            Ok(opened) => opened.unzip(),
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let rooms = Rooms { catalogue, sharing, rated, metrics: metrics.clone() };
        let gateway = match gateway(&config, resolved, drivers, rooms, &shutdown) {
            Ok(gateway) => gateway,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        let followers = match discovery::follow(&config, bases, &gateway, &metrics, &waiting) {
            Ok(followers) => followers,
            Err(error) => {
                shutdown.kill.cancel();
                return Err(error);
            }
        };
        if let Err(error) = gateway.learn_budgets().await {
            warn!(%error, "budgets begin without what was used of them before");
        }
        let placing = gateway.clone();
        let placing = AbortOnDropHandle::new(tokio::spawn(async move { placing.keep_placed().await }));
        let limiting = gateway.clone();
        let limiting = AbortOnDropHandle::new(tokio::spawn(async move { limiting.keep_limits().await }));
        // Nobody else sets it.
        let _ = coming.set(gateway.clone());
        let logging = logging.map(Logging::start);
        let app = Self {
            addresses,
            gateway,
            shutdown,
            drain_timeout: config.shutdown.drain_timeout,
            servers,
            waiting,
            placing,
            limiting,
            logging,
            _followers: followers,
        };
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
        drop(self.placing);
        // What still runs counts at the other gateways.
        self.shutdown.run(self.drain_timeout).await;
        drop(self.limiting);
        if !matches!(tokio::time::timeout(FLUSH, self.gateway.flush_usage()).await, Ok(Ok(()))) {
            warn!("the catalogue's database is away: not all usage was written down");
        }
        self.gateway.leave().await;
        if let Some(logging) = self.logging {
            logging.stop().await;
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

/// Rooms that were opened before the gateway.
struct Rooms {
    catalogue: Arc<Catalogue>,
    sharing: Option<Arc<Sharing>>,
    rated: Option<Ratings>,
    metrics: Arc<Metrics>,
}

/// What writes ratings and events down beside the requests.
struct Logging {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Logging {
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

/// Puts the rooms together around drivers that are ready.
fn gateway(
    config: &Config,
    resolved: Resolved,
    drivers: Vec<(WorkerConfig, Arc<dyn Driver>)>,
    rooms: Rooms,
    shutdown: &Shutdown,
) -> Result<Arc<Gateway>, StartError> {
    let Rooms { catalogue, sharing, rated, metrics } = rooms;
    let workers = drivers.into_iter().map(|(worker, driver)| pooled(&worker, driver, &catalogue, &metrics));
    let pool = Arc::new(Pool::new(workers.collect(), catalogue.clone(), metrics.clone()));
    let guard = guard::guard(config, &pool, metrics.clone())?;
    let live = Live::new(resolved.keyring, resolved.bases).guarded(config.policies());
    let live = live.rating(ratings::policies(config));
    let admission = Admission::new(config.gateway.admission.clone()).sharing(sharing);
    let gateway = Gateway::new(config.gateway.clone(), live, admission, pool, metrics, shutdown.cut_off.clone());
    Ok(Arc::new(gateway.guarded(guard).rating(rated)))
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
