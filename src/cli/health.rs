//! `tenantry health`: asks a running gateway how it is, for containers that
//! have no other program to ask with.

use std::time::Duration;

use clap::Args;

use super::api::{Server, other};
use super::{Failure, say};

/// A gateway that does not answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Ask whether it can serve, too, and not only whether it runs
    #[arg(long)]
    ready: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, ready } = arguments;
    let path = if ready { "readyz" } else { "healthz" };
    server.run(async |api| {
        let (status, answer) = api.look(path, PATIENCE).await?;
        if status.is_success() { say(&answer) } else { Err(other(format!("{answer} ({})", status.as_u16()))) }
    })
}
