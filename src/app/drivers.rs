//! From the workers of the configuration to drivers that run.

use std::sync::Arc;

use crate::config::{
    BaseConfig, Config, DriverConfig, EngineConfig, FixedAdapter, Precision, RemoteConfig, WorkerConfig,
};
use crate::engine::files::AdapterLimits;
use crate::engine::{self, kernels};
use crate::types::{BaseName, Secret};
use crate::worker::{
    self, Driver, Embedded, EmbeddedConfig, Grpc, GrpcConfig, LlamaCpp, LlamaCppConfig, OpenAi, OpenAiConfig,
    ServedBase, Vllm, VllmConfig,
};

use super::DriverError;

/// Largest artifact that is read; a rank-64 adapter of all modules of an 8B model takes a third of it.
pub(super) const MAX_ADAPTER_BYTES: u64 = 1 << 30;

/// Loads its models where it is an engine of this process, which takes seconds;
/// another process is connected to when it is needed.
pub(super) fn driver(config: &Config, worker: &WorkerConfig) -> Result<Arc<dyn Driver>, DriverError> {
    Ok(match &worker.driver {
        DriverConfig::Embedded(engine) => {
            // The pool keeps to the memory for adapters; beside it, it is counted here.
            let adapter_bytes = engine.memory_bytes.map(|_| worker.adapter_bytes);
            let config_of = embedded(engine, worker.max_adapter_rank, adapter_bytes);
            // In the worker's order: the first that fit are loaded first.
            let served = worker.bases.iter().flat_map(|name| config.bases.iter().find(|base| base.name == *name));
            Arc::new(Embedded::start(&config_of, bases(served))?)
        }
        DriverConfig::Grpc(remote) => Arc::new(Grpc::start(grpc(worker, remote)?)?),
        DriverConfig::Vllm { remote, sleep_after } => {
            let config = VllmConfig { remote: http(worker, remote)?, sleep_after: *sleep_after };
            Arc::new(Vllm::start(config)?)
        }
        DriverConfig::LlamaCpp { remote, adapters } => {
            let adapters = adapters.iter().map(fixed).collect();
            Arc::new(LlamaCpp::start(LlamaCppConfig { remote: http(worker, remote)?, adapters })?)
        }
        DriverConfig::OpenAi(remote) => Arc::new(OpenAi::start(OpenAiConfig { remote: http(worker, remote)? })?),
    })
}

fn http(worker: &WorkerConfig, remote: &RemoteConfig) -> Result<worker::RemoteConfig, DriverError> {
    let model = |base: &BaseName| {
        let name = remote.models.get(base).cloned().unwrap_or_else(|| base.to_string());
        (base.clone(), name)
    };
    Ok(worker::RemoteConfig {
        url: remote.url.clone(),
        key: key(remote)?,
        models: worker.bases.iter().map(model).collect(),
        connect_timeout: remote.connect_timeout,
        first_byte_timeout: remote.first_byte_timeout,
        stall_timeout: remote.stall_timeout,
        load_timeout: remote.load_timeout,
        poll_interval: remote.poll_interval,
    })
}

fn fixed(adapter: &FixedAdapter) -> worker::FixedAdapter {
    let FixedAdapter { tenant, name, revision, file } = adapter.clone();
    worker::FixedAdapter { tenant, name, revision, file }
}

fn key(remote: &RemoteConfig) -> Result<Option<Secret>, DriverError> {
    remote.key.as_ref().map(|key| key.read().map_err(DriverError::Key)).transpose()
}

fn grpc(worker: &WorkerConfig, remote: &RemoteConfig) -> Result<GrpcConfig, DriverError> {
    Ok(GrpcConfig {
        url: remote.url.clone(),
        bases: worker.bases.clone(),
        key: key(remote)?,
        connect_timeout: remote.connect_timeout,
        first_byte_timeout: remote.first_byte_timeout,
        stall_timeout: remote.stall_timeout,
        load_timeout: remote.load_timeout,
        poll_interval: remote.poll_interval,
    })
}

pub(super) fn embedded(engine: &EngineConfig, max_rank: usize, adapter_bytes: Option<u64>) -> EmbeddedConfig {
    EmbeddedConfig {
        precision: precision(engine.precision),
        engine: engine_config(engine),
        adapters: AdapterLimits { max_rank, max_bytes: MAX_ADAPTER_BYTES },
        adapter_bytes,
        memory_bytes: engine.memory_bytes,
    }
}

/// Those whose files are known; validation saw to it that all are.
pub(super) fn bases<'a>(bases: impl Iterator<Item = &'a BaseConfig>) -> Vec<ServedBase> {
    let served = |base: &BaseConfig| {
        let path = base.path.clone()?;
        Some(ServedBase { name: base.name.clone(), path, also_known_as: base.source.clone() })
    };
    bases.filter_map(served).collect()
}

pub(super) fn precision(configured: Precision) -> kernels::Precision {
    match configured {
        Precision::Fast => kernels::Precision::Fast,
        Precision::Exact => kernels::Precision::Exact,
    }
}

pub(super) fn engine_config(engine: &EngineConfig) -> engine::Config {
    engine::Config {
        threads: engine.threads.map_or_else(|| engine::Config::default().threads, usize::from),
        max_batch_rows: engine.max_batch_rows,
        prefill_chunk: engine.prefill_chunk,
        queue: engine.queue,
        kv_bytes: engine.kv_bytes,
        context: engine.context,
    }
}
