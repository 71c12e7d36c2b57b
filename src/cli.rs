//! The command line: what can be asked, and the commands that need no server.

pub(crate) mod adapters;
mod api;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod policies;
pub(crate) mod process;
pub(crate) mod ratings;
pub(crate) mod tenants;
pub(crate) mod usage;
pub(crate) mod workers;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use tenantry::app::{self, StartError};
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
    /// Make tenants while gateways run, and see those that there are
    Tenants(tenants::Arguments),
    /// Make, rotate and revoke keys, or make and hash them for the configuration
    Keys(keys::Arguments),
    /// See the guard's policies, and give them to tenants while gateways run
    Policies(policies::Arguments),
    /// See and set what of a running gateway's log is written
    LogLevel(process::LogLevel),
    /// Have a running gateway read its configuration again
    Reload(process::Reload),
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
