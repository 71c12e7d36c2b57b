//! Reading the file, and looking whether what it names is on the disk.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::problem::{Place, Problem, Problems};
use super::validate::{self, Folder};
use super::{Config, env, tree};

/// A configuration, and what about it deserves a second look.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
}

/// Reads, parses and validates `file` with `variables` (all of the
/// environment) laid over it, and checks that the paths it names exist.
pub fn load(file: &Path, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Loaded, Problems> {
    let text = fs::read_to_string(file).map_err(|error| {
        let place = Place::File { file: file.into(), line: None, column: None };
        Problem { place, path: String::new(), message: format!("cannot be read: {error}") }
    })?;
    check(file, &text, variables, missing_paths)
}

/// The part of [`load`] that looks at no disk; `file` is where the text is
/// said to come from.
pub fn parse(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Problems> {
    check(file, text, variables, |_| Vec::new())
}

fn check(
    file: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    on_disk: impl FnOnce(&Config) -> Vec<Problem>,
) -> Result<Loaded, Problems> {
    let mut tree = tree::parse(file, text).map_err(Problems::new)?;
    let mut problems = env::overlay(&mut tree, variables);
    let (config, more) = validate::validate(&tree, &Folder(file.parent().unwrap_or(Path::new(""))));
    problems.extend(more);
    problems.extend(on_disk(&config));
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    Ok(Loaded { warnings: validate::warnings(&config), config })
}

fn missing_paths(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    // An empty path stands for one that was a problem before.
    for base in config.bases.iter().filter(|base| !base.path.as_os_str().is_empty()) {
        let path = tree::join(&tree::join("bases", base.name.as_str()), "path");
        if let Err(error) = fs::metadata(&base.path) {
            problems.push(config.problem(&path, format!("{}: {error}", base.path.display())));
        }
    }
    for adapter in config.adapters.iter().filter(|adapter| !adapter.folder.as_os_str().is_empty()) {
        let message = match fs::metadata(&adapter.folder) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => "is not a folder".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!("{}: {message}", adapter.folder.display());
        problems.push(config.problem(&adapter.config_path, message));
    }
    problems
}
