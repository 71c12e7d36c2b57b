//! The `tenantry` command.

mod cli;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use tenantry::app::{self, App, StartError, WorkerApp};
use tenantry::telemetry;

use cli::{Cli, Command, Failure};

/// Gives back what a base model leaves behind; the C library's allocator keeps much of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { config } => return serve(&config).unwrap_or_else(Failure::report),
        Command::Worker { config } => return worker(&config).unwrap_or_else(Failure::report),
        Command::Check { file } => cli::check(&file),
        Command::Health(arguments) => cli::health::run(arguments),
        Command::Adapters(arguments) => cli::adapters::run(arguments),
        Command::Workers(arguments) => cli::workers::run(arguments),
        Command::Limits(arguments) => cli::limits::run(arguments),
        Command::Usage(arguments) => cli::usage::run(arguments),
        Command::Ratings(arguments) => cli::ratings::run(arguments),
        Command::Guard(arguments) => cli::guard::run(arguments),
        Command::Tenants(arguments) => cli::tenants::run(arguments),
        Command::Keys(arguments) => cli::keys::run(arguments),
        Command::Policies(arguments) => cli::policies::run(arguments),
        Command::LogLevel(arguments) => cli::process::log_level(arguments),
        Command::Reload(arguments) => cli::process::reload(arguments),
        Command::Model(command) => cli::model(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends at once.
fn serve(file: &Path) -> Result<ExitCode, Failure> {
    let loaded = app::load(file)?;
    telemetry::init_log(&loaded.config.log);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for (tenant, key) in loaded.config.demo_keys() {
        warn!(%tenant, key, "a demonstration key is in use; it is public, so anyone who reaches this server may use it");
    }
    until_signal(App::start(loaded), App::reload, App::drain)
}

/// As [`serve`], for gateways instead of tenants.
fn worker(file: &Path) -> Result<ExitCode, Failure> {
    let loaded = app::load_worker(file)?;
    telemetry::init_log(&loaded.process.log);
    let kept = async |_: &WorkerApp| warn!("a worker's configuration is read at its start alone");
    until_signal(WorkerApp::start(loaded), kept, WorkerApp::drain)
}

fn until_signal<T, D: Future<Output = ()>>(
    start: impl Future<Output = Result<T, StartError>>,
    hangup: impl AsyncFn(&T),
    drain: impl FnOnce(T) -> D,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::Other(error.to_string()))?;
    let outcome = runtime.block_on(async {
        let signals = |kind| signal(kind).map_err(|error| Failure::Other(format!("signals: {error}")));
        let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
        // From now on one that comes early waits.
        let mut hung_up = signals(SignalKind::hangup())?;
        let mut stop = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let app = tokio::select! {
            app = start => app?,
            () = stop() => return Ok(ExitCode::SUCCESS),
        };
        let serving = async {
            while hung_up.recv().await.is_some() {
                hangup(&app).await;
            }
        };
        tokio::select! {
            () = serving => {}
            () = stop() => {}
        }
        tokio::select! {
            () = drain(app) => Ok(ExitCode::SUCCESS),
            () = stop() => {
                warn!("a second signal: ending at once");
                Ok(ExitCode::FAILURE)
            }
        }
    });
    // Models that are being read, and prompts being tokenised, are not waited for.
    runtime.shutdown_background();
    outcome
}
