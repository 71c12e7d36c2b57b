//! What a configuration's files hold: read before anything is served.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use crate::config::{
    self, AdapterEntry, BaseConfig, Config, EngineConfig, Inspect, Loaded, LoadedWorker, Problems, WorkerProcess,
};
use crate::engine;
use crate::engine::files::{AdapterFiles, AdapterLimits, ModelConfig, ModelFiles};
use crate::types::BaseName;

use super::drivers::{MAX_ADAPTER_BYTES, engine_config, precision};

/// Reads a configuration as every command does: the file, the environment, the
/// heads of the base models, and every adapter's artifact, which is checked
/// against its base. Tells all problems at once.
pub fn load(file: &Path) -> Result<Loaded, Problems> {
    let loaded = config::load(file, env::vars_os(), Heads::default())?;
    match super::ratings::not_built(&loaded.config) {
        Some(problem) => Err(problem.into()),
        None => Ok(loaded),
    }
}

/// As [`load`], of the file of `tenantry worker`.
pub fn load_worker(file: &Path) -> Result<LoadedWorker, Problems> {
    let inspect = |base: &BaseConfig, process: &WorkerProcess| serves("it", &process.engine, base).map(drop);
    config::load_worker(file, env::vars_os(), inspect)
}

/// Looks into the files that a configuration names.
#[derive(Default)]
struct Heads {
    /// Of the base models that could be read.
    models: BTreeMap<BaseName, ModelConfig>,
}

impl Inspect for Heads {
    fn base(&mut self, base: &BaseConfig, config: &Config) -> Result<(), String> {
        let serving = config.workers.iter().filter(|worker| worker.bases.contains(&base.name));
        let mut here = serving.filter_map(|worker| Some((worker.name.as_str(), worker.embedded()?))).peekable();
        if here.peek().is_none() {
            // Another process serves it; its shapes are what adapters are held against.
            let Some(path) = &base.path else { return Ok(()) };
            let head = ModelFiles::read_config(path).map_err(|error| error.to_string())?;
            self.models.insert(base.name.clone(), head);
        }
        for (worker, engine) in here {
            let head = serves(&format!("worker {worker}"), engine, base)?;
            self.models.insert(base.name.clone(), head);
        }
        Ok(())
    }

    fn adapter(
        &mut self,
        adapter: &AdapterEntry,
        base: &BaseConfig,
        config: &Config,
    ) -> Result<Option<String>, String> {
        if base.path.is_none() {
            return Err(format!("the shapes of `{}` are not known: give its `path`", base.name));
        }
        // A base that cannot be read is a problem of its own.
        let Some(head) = self.models.get(&base.name) else { return Ok(None) };
        artifact_digest(config, adapter, base, head).map(Some)
    }

    fn classifier(&mut self, folder: &Path) -> Result<(), String> {
        super::guard::open(folder).map(drop)
    }
}

/// Whether an engine of ours can serve the base model; its head, where it can.
fn serves(worker: &str, engine: &EngineConfig, base: &BaseConfig) -> Result<ModelConfig, String> {
    let path = base.path.as_ref().ok_or("its files are not named")?;
    let files = ModelFiles::open(path).map_err(|error| error.to_string())?;
    if files.tokenizer().is_none() {
        return Err(format!("{}: has no tokenizer", path.display()));
    }
    engine::check(files.config(), precision(engine.precision), &engine_config(engine))
        .map_err(|error| format!("{}: {worker} cannot serve it: {error}", path.display()))?;
    Ok(files.config().clone())
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
