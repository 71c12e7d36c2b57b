//! `tenantry workers`: the workers of a running gateway.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::api::Server;
use super::{Failure, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them with their state
    List,
    /// Give one no new requests; those that it runs finish
    Drain { name: String },
    /// Put one back into service
    Undrain { name: String },
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, command } = arguments;
    server.run(async |api| {
        let request = match &command {
            Command::List => api.request(Method::GET, &["workers"]),
            Command::Drain { name } => api.request(Method::POST, &["workers", name, "drain"]),
            Command::Undrain { name } => api.request(Method::POST, &["workers", name, "undrain"]),
        };
        let answer = api.send(request).await?;
        if server.json { say(&answer.to_string()) } else { tell(&answer) }
    })
}

fn tell(answer: &Value) -> Result<(), Failure> {
    match answer.get("workers").and_then(Value::as_array) {
        Some(workers) => workers.iter().try_for_each(|worker| say(&line(worker))),
        None => say(&line(answer)),
    }
}

fn line(worker: &Value) -> String {
    let text = |name: &str| worker.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| worker.get(name).and_then(Value::as_u64).unwrap_or_default();
    let bases: Vec<&str> =
        worker.get("bases").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let why = match text("unhealthy") {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    format!(
        "{}  {}{why}  serves {}  requests {}  running {}  waiting {}  adapters {}  quarantined {}",
        text("name"),
        text("state"),
        bases.join(", "),
        number("leases"),
        number("batch_rows"),
        number("waiting"),
        number("adapters_resident"),
        number("adapters_quarantined")
    )
}
