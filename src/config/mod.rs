//! The configuration: file → tree → environment laid over it → validation that
//! reports every problem with its path → [`Config`], whose types cannot be
//! wrong, so that nothing is checked again later.
//!
//! Only this room knows the file and reads the environment. Validation is
//! pure; [`load()`] alone looks at the disk, and what an adapter's artifact holds
//! is found out by whoever can read it, through [`load()`].

mod boot;
mod bytes;
mod catalogue;
mod discovery;
mod duration;
mod env;
mod guard;
mod limits;
mod load;
mod observe;
mod problem;
mod ratings;
mod secret;
mod section;
mod tenants;
#[cfg(test)]
mod tests;
mod tree;
mod validate;
mod worker_process;
mod workers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::KeyHash;
use crate::moderation::Policy;
use crate::telemetry::{LogConfig, MetricsConfig};
use crate::types::{BaseName, Limits, Priority, Share, TenantId};

pub use discovery::{
    DiscoverConfig, DnsConfig, DnsName, KubernetesApi, KubernetesConfig, PortConfig, Scheme, SourceConfig,
};
pub use guard::{GuardConfig, JudgeConfig, JudgeKind, Stage2Config};
pub use load::{Digests, Inspect, Loaded, LoadedWorker, is_worker, load, load_worker, parse, parse_worker};
pub use problem::{Place, Problem, Problems};
pub use ratings::{Compression, KafkaLogin, KafkaTls, Mechanism, RatedTenant, RatingsConfig, SinkConfig, SinkKind};

use boot::Boot;
use tree::Places;

#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub ops: OpsConfig,
    pub shutdown: ShutdownConfig,
    pub log: LogConfig,
    pub metrics: MetricsConfig,
    /// `None`: nothing is traced.
    pub traces: Option<TracesConfig>,
    pub reload: ReloadConfig,
    pub gateway: crate::gateway::Config,
    pub catalogue: CatalogueConfig,
    /// `None`: this gateway counts alone.
    pub redis: Option<RedisConfig>,
    pub guard: GuardConfig,
    pub ratings: RatingsConfig,
    pub bases: Vec<BaseConfig>,
    pub workers: Vec<WorkerConfig>,
    pub tenants: Vec<TenantConfig>,
    pub adapters: Vec<AdapterEntry>,
    boot: Boot,
    places: Places,
}

/// The public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub max_body_bytes: usize,
    pub header_read_timeout: Duration,
    pub body_read_timeout: Duration,
    /// How long a stream's headers wait for the first event.
    pub hold: Duration,
    pub cors: Cors,
}

/// Which other origins' pages may call the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    Off,
    Any,
    /// Each as a browser sends it: scheme, host and port, nothing after.
    Origins(Vec<String>),
}

/// The listener for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpsConfig {
    pub listen: SocketAddr,
    /// What callers of the admin API have to bring. Without one, only a
    /// loopback listener has the API.
    pub admin_key: Option<AdminKey>,
}

/// The key of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey {
    pub hash: KeyHash,
    /// What audit events call whoever brings it.
    pub name: Arc<str>,
}

/// Whether the file is read again while the gateway runs; SIGHUP and the admin
/// API have it read whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadConfig {
    /// When it has changed.
    pub watch: bool,
    /// How often it is looked at.
    pub interval: Duration,
}

/// Where published adapters are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueConfig {
    pub data_dir: PathBuf,
    /// `None` for an SQLite file in `data_dir`.
    pub database: Option<SecretRef>,
    /// `None` for a folder in `data_dir`.
    pub s3: Option<S3Config>,
    pub poll_interval: Duration,
    pub max_adapter_bytes: u64,
}

/// Where several gateways share their tenants' limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    pub url: SecretRef,
    /// Of the names of all keys.
    pub prefix: String,
    /// So many are counted on until Redis has told how many there are.
    pub gateways: u32,
}

/// Where traces go; see [`crate::telemetry::TraceConfig`].
#[derive(Debug, Clone, PartialEq)]
pub struct TracesConfig {
    pub endpoint: String,
    pub headers: BTreeMap<String, SecretRef>,
    pub sample: f64,
    pub follow_clients: bool,
    pub service_name: String,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    pub bucket: String,
    pub prefix: String,
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key: SecretRef,
    pub secret_key: SecretRef,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long running generations have to finish.
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseConfig {
    pub name: BaseName,
    /// A GGUF file or a Hugging Face folder; `None` where no worker of ours
    /// reads it, and then nothing can be said of adapters for it.
    pub path: Option<PathBuf>,
    /// Hub ids by which adapters may name the base they were trained on.
    pub source: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    pub name: String,
    pub bases: Vec<BaseName>,
    pub driver: DriverConfig,
    /// Memory for loaded adapters, as the pool counts it.
    pub adapter_bytes: u64,
    /// How many it may hold; `None` where their memory alone counts.
    pub adapter_slots: Option<usize>,
    pub max_adapter_rank: usize,
    /// Sequences that it runs at one time, where it does not say so itself.
    pub slots: Option<u64>,
}

/// The kind of engine, and how to run it or to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverConfig {
    Embedded(EngineConfig),
    /// `tenantry worker` in another process.
    Grpc(RemoteConfig),
    Vllm {
        remote: RemoteConfig,
        /// `None` for never.
        sleep_after: Option<Duration>,
    },
    LlamaCpp {
        remote: RemoteConfig,
        adapters: Vec<FixedAdapter>,
    },
    OpenAi(RemoteConfig),
}

/// The embedded engine, for each base model that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// `None` for all cores.
    pub threads: Option<NonZeroUsize>,
    pub precision: Precision,
    pub max_batch_rows: usize,
    /// Prompt tokens that one step takes in.
    pub prefill_chunk: usize,
    /// Sequences that may wait for a place in the batch.
    pub queue: usize,
    /// Of all its base models together.
    pub kv_bytes: u64,
    /// Weights, adapters, and in the place of `kv_bytes` what they leave.
    pub memory_bytes: Option<u64>,
    /// `None` for the model's own.
    pub context: Option<usize>,
}

/// A worker in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Empty where instances are discovered, which have one each.
    pub url: String,
    pub discover: Option<DiscoverConfig>,
    pub key: Option<SecretRef>,
    /// What the worker calls the base models, where it is not by their names.
    pub models: BTreeMap<BaseName, String>,
    pub connect_timeout: Duration,
    /// The longest wait for an answer to begin.
    pub first_byte_timeout: Duration,
    /// The longest silence within an answer that has begun.
    pub stall_timeout: Duration,
    pub load_timeout: Duration,
    pub poll_interval: Duration,
}

/// An adapter that a worker was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedAdapter {
    pub tenant: TenantId,
    pub name: Arc<str>,
    pub revision: u32,
    /// Name of the file that the worker was given.
    pub file: String,
}

/// Where a secret is to be found; the file itself holds none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    Env(String),
    File(PathBuf),
}

/// The configuration of `tenantry worker`.
#[derive(Debug, Clone)]
pub struct WorkerProcess {
    pub listen: SocketAddr,
    /// What gateways have to bring.
    pub key: Option<KeyHash>,
    pub shutdown: ShutdownConfig,
    pub log: LogConfig,
    pub bases: Vec<BaseConfig>,
    pub engine: EngineConfig,
    pub adapter_bytes: u64,
    pub max_adapter_rank: usize,
    places: Places,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Fast,
    Exact,
}

#[derive(Debug, Clone)]
pub struct TenantConfig {
    pub id: TenantId,
    pub limits: Limits,
    /// By model name, whether or not there is one yet.
    pub model_limits: BTreeMap<Arc<str>, Limits>,
    pub share: Share,
    /// `None` for the standard one.
    pub guard: Option<Arc<Policy>>,
    /// By model name, whether or not there is one yet.
    pub model_guards: BTreeMap<Arc<str>, Arc<Policy>>,
    pub ratings: RatedTenant,
    pub keys: Vec<TenantKey>,
    pub models: BTreeMap<Arc<str>, ModelAlias>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantKey {
    pub hash: KeyHash,
    /// What operators call the key: unlike the tenant's others.
    pub name: Arc<str>,
    pub limits: Limits,
    /// `None` for the tenant's.
    pub priority: Option<Priority>,
    /// The key itself, where it is a demonstration key and so no secret.
    pub demo: Option<String>,
}

/// What a tenant's model name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAlias {
    pub base: BaseName,
    /// One of the tenant's own adapters.
    pub adapter: Option<Arc<str>>,
}

/// An adapter as the file lists it: its digest is known only when its
/// artifact has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterEntry {
    pub tenant: TenantId,
    pub name: Arc<str>,
    pub revision: u32,
    pub base: BaseName,
    /// A PEFT folder.
    pub folder: PathBuf,
    /// The key that names the folder, such as `tenants[0].adapters[0].path`.
    pub config_path: String,
}

// === impl WorkerConfig ===

impl WorkerConfig {
    /// The engine in this process, where it is that.
    pub fn embedded(&self) -> Option<&EngineConfig> {
        match &self.driver {
            DriverConfig::Embedded(engine) => Some(engine),
            DriverConfig::Grpc(_)
            | DriverConfig::Vllm { .. }
            | DriverConfig::LlamaCpp { .. }
            | DriverConfig::OpenAi(_) => None,
        }
    }

    pub fn remote(&self) -> Option<&RemoteConfig> {
        match &self.driver {
            DriverConfig::Embedded(_) => None,
            DriverConfig::Grpc(remote) | DriverConfig::OpenAi(remote) => Some(remote),
            DriverConfig::Vllm { remote, .. } | DriverConfig::LlamaCpp { remote, .. } => Some(remote),
        }
    }

    /// Where its instances are looked up; `None` for one worker that is known.
    pub fn discover(&self) -> Option<&DiscoverConfig> {
        self.remote()?.discover.as_ref()
    }

    /// The worker that was found at `address`, a host and a port: the same in
    /// all else.
    pub fn instance(&self, address: &str) -> Self {
        let mut instance = Self { name: format!("{}/{address}", self.name), ..self.clone() };
        match &mut instance.driver {
            DriverConfig::Embedded(_) => {}
            DriverConfig::Grpc(remote)
            | DriverConfig::Vllm { remote, .. }
            | DriverConfig::LlamaCpp { remote, .. }
            | DriverConfig::OpenAi(remote) => {
                if let Some(discover) = remote.discover.take() {
                    remote.url = discover.url(address);
                }
            }
        }
        instance
    }
}

// === impl WorkerProcess ===

impl WorkerProcess {
    /// A problem with the value at `path`, found by whoever used the value.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem { place: self.places.of_path(path), path: path.to_owned(), message: message.into() }
    }
}

// === impl Config ===

impl Config {
    /// The demonstration keys, which are public and have to be said to be.
    pub fn demo_keys(&self) -> impl Iterator<Item = (&TenantId, &str)> {
        let keys = self.tenants.iter().flat_map(|tenant| tenant.keys.iter().map(move |key| (&tenant.id, key)));
        keys.filter_map(|(tenant, key)| Some((tenant, key.demo.as_deref()?)))
    }

    /// A problem with the value at `path`, found by whoever used the value.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem { place: self.places.of_path(path), path: path.to_owned(), message: message.into() }
    }
}
