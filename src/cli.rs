//! The command line: what can be asked, and the commands that need no server.

pub(crate) mod adapters;
mod api;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod limits;
pub(crate) mod ratings;
pub(crate) mod usage;
pub(crate) mod workers;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use tenantry::app::{self, StartError};
use tenantry::auth::{KeyHash, NewKey};
use tenantry::config::{self, Problems};
use tenantry::engine::files::{ModelFiles, SaveDtype, write_hf_folder};

/// A multi-tenant model-serving gateway.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the tenants of a configuration file
    Serve {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the embedded engine for gateways in other processes
    Worker {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Tell everything that is wrong with a configuration file
    Check { file: PathBuf },
    /// Ask a running gateway whether it is well; the exit code says it
    Health(health::Arguments),
    /// Publish adapters to a running gateway, and see what became of them
    Adapters(adapters::Arguments),
    /// See the workers of a running gateway, and take them out of service
    Workers(workers::Arguments),
    /// See tenants' limits, and set them while gateways run
    Limits(limits::Arguments),
    /// Sum what tenants have used, by day, key and model
    Usage(usage::Arguments),
    /// Follow, export and sum up what end users think of their generations
    Ratings(ratings::Arguments),
    /// Judge texts as the guard does
    Guard(guard::Arguments),
    /// Make keys and hash them for the configuration
    #[command(subcommand)]
    Keys(Keys),
    /// Work with model files
    #[command(subcommand)]
    Model(ModelCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Write a GGUF file as a Hugging Face folder
    Convert {
        gguf: PathBuf,
        folder: PathBuf,
        #[arg(long, value_enum, default_value = "f16")]
        dtype: Dtype,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key, and print it this once with its line for the configuration
    New,
    /// Print a key's line for the configuration
    Hash {
        /// The key; left out, it is read from standard input, which keeps it
        /// out of the shell's history
        key: Option<String>,
    },
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    Config(Problems),
    Other(String),
}

pub(crate) fn check(file: &Path) -> Result<(), Failure> {
    if config::is_worker(file) {
        let bases = app::load_worker(file)?.process.bases.len();
        return say(&format!("{}: good; a worker's, base models: {bases}", file.display()));
    }
    let loaded = app::load(file)?;
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}"))?;
    }
    let (tenants, adapters) = (loaded.config.tenants.len(), loaded.config.adapters.len());
    say(&format!("{}: good; tenants: {tenants}, adapters: {adapters}", file.display()))
}

pub(crate) fn keys(command: Keys) -> Result<(), Failure> {
    match command {
        Keys::New => {
            let key = NewKey::generate().map_err(|error| Failure::Other(format!("no random bits: {error}")))?;
            note(
                "The key, which is not kept anywhere and cannot be shown again, and its line for the tenant's `keys`:",
            );
            say(key.text())?;
            say(&config_line(key.hash()))
        }
        Keys::Hash { key } => {
            let key = key.map_or_else(key_from_input, Ok)?;
            let key = key.trim_ascii();
            if key.is_empty() || !key.bytes().all(|c| c.is_ascii_graphic()) {
                return Err(Failure::Other("a key is one or more visible ASCII characters".to_owned()));
            }
            say(&config_line(KeyHash::of(key.as_bytes())))
        }
    }
}

pub(crate) fn model(command: ModelCommand) -> Result<(), Failure> {
    let ModelCommand::Convert { gguf, folder, dtype } = command;
    let dtype = match dtype {
        Dtype::F32 => SaveDtype::F32,
        Dtype::F16 => SaveDtype::F16,
        Dtype::Bf16 => SaveDtype::Bf16,
    };
    let files = ModelFiles::open(&gguf).map_err(|error| Failure::Other(error.to_string()))?;
    write_hf_folder(&files, &folder, dtype).map_err(|error| Failure::Other(error.to_string()))?;
    say(&format!("wrote {}", folder.display()))
}

fn config_line(hash: KeyHash) -> String {
    format!("{{ sha256 = \"{hash}\" }}")
}

fn key_from_input() -> Result<String, Failure> {
    /// A longer text is no key but, say, the wrong file.
    const LONGEST: u64 = 4096;

    let input = io::stdin();
    if input.is_terminal() {
        note("The key, then Enter and Ctrl-D:");
    }
    let mut key = String::new();
    let read = input.take(LONGEST).read_to_string(&mut key);
    read.map_err(|error| Failure::Other(format!("standard input: {error}")))?;
    Ok(key)
}

/// A line of the command's result.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(|error| Failure::Other(format!("standard output: {error}")))
}

/// A line for whoever watches. That nobody can read it changes nothing.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

// === impl Failure ===

impl Failure {
    /// Tells what went wrong; the process ends with the code returned.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Config(problems) => {
                note(&problems.to_string());
                ExitCode::from(2)
            }
            Self::Other(message) => {
                note(&format!("tenantry: {message}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}
