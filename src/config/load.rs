//! Reading the file, and looking whether what it names is on the disk.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::problem::{Place, Problem, Problems};
use super::validate::{self, Folder};
use super::{AdapterEntry, BaseConfig, Config, env, tree};

/// A configuration, and what about it deserves a second look.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub digests: Digests,
    pub warnings: Vec<Problem>,
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
}

/// Reads, parses and validates `file` with `variables` (all of the
/// environment) laid over it, and has the files it names looked into.
pub fn load(
    file: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    inspect: impl Inspect,
) -> Result<Loaded, Problems> {
    let text = fs::read_to_string(file).map_err(|error| {
        let place = Place::File { file: file.into(), line: None, column: None };
        Problem { place, path: String::new(), message: format!("cannot be read: {error}") }
    })?;
    check(file, &text, variables, |config| on_disk(config, inspect))
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
    Ok(Loaded { warnings: validate::warnings(&config), config, digests })
}

/// Looks at what the configuration names, as far as it could be read: there may be problems besides.
fn on_disk(config: &Config, mut inspect: impl Inspect) -> (Digests, Vec<Problem>) {
    let (mut digests, mut problems) = (Digests::new(), Vec::new());
    // An empty path stands for one that was a problem before.
    for base in config.bases.iter().filter(|base| !base.path.as_os_str().is_empty()) {
        let found = fs::metadata(&base.path).map_err(|error| format!("{}: {error}", base.path.display()));
        if let Err(message) = found.and_then(|_| inspect.base(base, config)) {
            let path = tree::join(&tree::join("bases", base.name.as_str()), "path");
            problems.push(config.problem(&path, message));
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

fn folder(path: &Path) -> Result<(), String> {
    let message = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "is not a folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("{}: {message}", path.display()))
}
