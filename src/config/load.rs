//! Reading the file, and looking whether what it names is on the disk.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::problem::{Place, Problem, Problems};
use super::validate::{self, Folder};
use super::{
    AdapterEntry, BaseConfig, Config, JudgeKind, SecretRef, SourceConfig, WorkerProcess, env, tree, worker_process,
};

/// A configuration, and what about it deserves a second look.
#[derive(Debug)]
pub struct Loaded {
    /// Where it was read from.
    pub file: PathBuf,
    /// What was written later is not in it.
    pub read: SystemTime,
    pub config: Config,
    pub digests: Digests,
    pub warnings: Vec<Problem>,
}

/// The configuration of `tenantry worker`.
#[derive(Debug)]
pub struct LoadedWorker {
    pub process: WorkerProcess,
}

/// SHA-256 of the adapters' artifacts, in hexadecimal digits, by the adapter's `config_path`.
pub type Digests = HashMap<String, String>;

/// Looks into the files that a configuration names; an `Err` is a problem with
/// the path that names the file.
pub trait Inspect {
    /// All bases come before all adapters.
    fn base(&mut self, base: &BaseConfig, config: &Config) -> Result<(), String>;

    /// The digest of an adapter's artifact; `None` where nothing can be said
    /// of it because of a problem with its base.
    fn adapter(&mut self, adapter: &AdapterEntry, base: &BaseConfig, config: &Config)
    -> Result<Option<String>, String>;

    /// Whether a folder has a classifier for the guard.
    fn classifier(&mut self, folder: &Path) -> Result<(), String>;
}

/// Reads, parses and validates `file` with `variables` (all of the
/// environment) laid over it, and has the files it names looked into.
pub fn load(
    file: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    inspect: impl Inspect,
) -> Result<Loaded, Problems> {
    let began = SystemTime::now();
    let loaded = check(file, &read(file)?, variables, |config| on_disk(config, inspect))?;
    Ok(Loaded { read: began, ..loaded })
}

/// As [`load`], of the file of `tenantry worker`.
pub fn load_worker(
    file: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    inspect: impl FnMut(&BaseConfig, &WorkerProcess) -> Result<(), String>,
) -> Result<LoadedWorker, Problems> {
    check_worker(file, &read(file)?, variables, inspect)
}

/// Whether a file is one of `tenantry worker`. What cannot be read is not.
pub fn is_worker(file: &Path) -> bool {
    let tree = read(file).and_then(|text| tree::parse(file, &text).map_err(Problems::new));
    tree.is_ok_and(|tree| matches!(&tree.value, tree::Value::Table(table) if table.contains_key("worker")))
}

fn read(file: &Path) -> Result<String, Problems> {
    let problem = |error| {
        let place = Place::File { file: file.into(), line: None, column: None };
        Problems::from(Problem { place, path: String::new(), message: format!("cannot be read: {error}") })
    };
    fs::read_to_string(file).map_err(problem)
}

/// The part of [`load_worker`] that looks at no disk.
pub fn parse_worker(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<LoadedWorker, Problems> {
    check_worker(file, text, variables, |_, _| Ok(()))
}

fn check_worker(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    mut inspect: impl FnMut(&BaseConfig, &WorkerProcess) -> Result<(), String>,
) -> Result<LoadedWorker, Problems> {
    let mut tree = tree::parse(file, text).map_err(Problems::new)?;
    let mut problems = env::overlay(&mut tree, variables);
    let folder = Folder(file.parent().unwrap_or(Path::new("")));
    let (process, more) = worker_process::validate(&tree, &folder);
    problems.extend(more);
    for base in process.bases.iter().filter(|base| base.path.as_ref().is_some_and(|path| !path.as_os_str().is_empty()))
    {
        if let Err(message) = inspect(base, &process) {
            problems.push(process.problem(&path_of(base), message));
        }
    }
    if problems.is_empty() { Ok(LoadedWorker { process }) } else { Err(Problems::new(problems)) }
}

/// The part of [`load`] that looks at no disk; `file` is where the text is
/// said to come from.
pub fn parse(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Problems> {
    check(file, text, variables, |_| (Digests::new(), Vec::new()))
}

fn check(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    on_disk: impl FnOnce(&Config) -> (Digests, Vec<Problem>),
) -> Result<Loaded, Problems> {
    let mut tree = tree::parse(file, text).map_err(Problems::new)?;
    let mut problems = env::overlay(&mut tree, variables);
    let (config, more) = validate::validate(&tree, &Folder(file.parent().unwrap_or(Path::new(""))));
    problems.extend(more);
    let (digests, more) = on_disk(&config);
    problems.extend(more);
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    Ok(Loaded {
        file: file.to_owned(),
        read: SystemTime::now(),
        warnings: validate::warnings(&config),
        config,
        digests,
    })
}

/// Looks at what the configuration names, as far as it could be read: there may be problems besides.
fn on_disk(config: &Config, mut inspect: impl Inspect) -> (Digests, Vec<Problem>) {
    let (mut digests, mut problems) = (Digests::new(), Vec::new());
    for base in &config.bases {
        // What is wrong with the path itself was a problem before.
        let Some(path) = base.path.as_ref().filter(|path| !path.as_os_str().is_empty()) else { continue };
        let found = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()));
        if let Err(message) = found.and_then(|_| inspect.base(base, config)) {
            problems.push(config.problem(&path_of(base), message));
        }
    }
    if let Some(Err(message)) = config.redis.as_ref().map(|redis| redis.url.read()) {
        problems.push(config.problem("redis.url", message));
    }
    for (path, secret) in config.ratings.secrets() {
        if let Err(message) = secret.read() {
            problems.push(config.problem(&path, message));
        }
    }
    for judge in &config.guard.judges {
        if let JudgeKind::Endpoint { key: Some(key), .. } = &judge.kind
            && let Err(message) = key.read()
        {
            let path = tree::join(&tree::join("guard.judges", &judge.name), "key");
            problems.push(config.problem(&path, message));
        }
    }
    if let Some(path) = config.guard.stage2.path.as_ref().filter(|path| !path.as_os_str().is_empty())
        && let Err(message) = folder(path).and_then(|()| inspect.classifier(path))
    {
        problems.push(config.problem("guard.stage2.path", message));
    }
    for worker in &config.workers {
        if let Some(Err(message)) = worker.remote().and_then(|remote| remote.key.as_ref()).map(SecretRef::read) {
            let path = tree::join(&tree::join("workers", &worker.name), "key");
            problems.push(config.problem(&path, message));
        }
        if let Some(SourceConfig::Kubernetes(service)) = worker.discover().map(|discover| &discover.source) {
            let path = tree::join(&tree::join("workers", &worker.name), "discover.kubernetes");
            let located = service.locate().and_then(|found| found.token.map_or(Ok(()), |token| token.read().map(drop)));
            if let Err(message) = located {
                problems.push(config.problem(&path, message));
            }
        }
    }
    for adapter in config.adapters.iter().filter(|adapter| !adapter.folder.as_os_str().is_empty()) {
        let base = config.bases.iter().find(|base| base.name == adapter.base);
        let read = folder(&adapter.folder).and_then(|()| match base {
            Some(base) => inspect.adapter(adapter, base, config),
            None => Ok(None),
        });
        match read {
            Ok(digest) => digests.extend(digest.map(|digest| (adapter.config_path.clone(), digest))),
            Err(message) => problems.push(config.problem(&adapter.config_path, message)),
        }
    }
    (digests, problems)
}

fn path_of(base: &BaseConfig) -> String {
    tree::join(&tree::join("bases", base.name.as_str()), "path")
}

fn folder(path: &Path) -> Result<(), String> {
    let message = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "is not a folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("{}: {message}", path.display()))
}
