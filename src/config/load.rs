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

/// Reads, parses and validates `file` with `variables` (all of the
/// environment) laid over it, checks that the paths it names exist, and has
/// every adapter's artifact read by `digest_of`, which gives the artifact's
/// digest or the reason why it cannot be used with its base model.
pub fn load(
    file: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    digest_of: impl FnMut(&AdapterEntry, &BaseConfig, &Config) -> Result<String, String>,
) -> Result<Loaded, Problems> {
    let text = fs::read_to_string(file).map_err(|error| {
        let place = Place::File { file: file.into(), line: None, column: None };
        Problem { place, path: String::new(), message: format!("cannot be read: {error}") }
    })?;
    check(file, &text, variables, |config| on_disk(config, digest_of))
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
fn on_disk(
    config: &Config,
    mut digest_of: impl FnMut(&AdapterEntry, &BaseConfig, &Config) -> Result<String, String>,
) -> (Digests, Vec<Problem>) {
    let (mut digests, mut problems) = (Digests::new(), Vec::new());
    let mut bases = HashMap::new();
    // An empty path stands for one that was a problem before.
    for base in config.bases.iter().filter(|base| !base.path.as_os_str().is_empty()) {
        match fs::metadata(&base.path) {
            Ok(_) => drop(bases.insert(&base.name, base)),
            Err(error) => {
                let path = tree::join(&tree::join("bases", base.name.as_str()), "path");
                problems.push(config.problem(&path, format!("{}: {error}", base.path.display())));
            }
        }
    }
    for adapter in config.adapters.iter().filter(|adapter| !adapter.folder.as_os_str().is_empty()) {
        let read = folder(&adapter.folder).and_then(|()| match bases.get(&adapter.base) {
            Some(base) => digest_of(adapter, base, config).map(Some),
            // Without the base, which is a problem of its own, nothing can be said of the adapter.
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
