//! The `tenantry` command.

mod cli;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use tenantry::app::{self, App};
use tenantry::telemetry;

use cli::{Cli, Command, Failure};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { config } => return serve(&config).unwrap_or_else(Failure::report),
        Command::Check { file } => cli::check(&file),
        Command::Keys(command) => cli::keys(command),
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
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::Other(error.to_string()))?;
    let outcome = runtime.block_on(async {
        let signals = |kind| signal(kind).map_err(|error| Failure::Other(format!("signals: {error}")));
        let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
        let mut stop = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let app = tokio::select! {
            app = App::start(loaded) => app?,
            () = stop() => return Ok(ExitCode::SUCCESS),
        };
        stop().await;
        tokio::select! {
            () = app.drain() => Ok(ExitCode::SUCCESS),
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
