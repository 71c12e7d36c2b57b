//! `tenantry log-level` and `tenantry reload`: a running gateway's log and
//! configuration.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Server, other};
use super::keys::length;
use super::{Failure, say};

#[derive(Debug, Args)]
pub(crate) struct LogLevel {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what of the log is written
    Show,
    /// Write more or less: a level, or directives such as `info,tenantry::pool=debug`
    Set {
        filter: String,
        /// For how long: 30s, 10m, 2h. Left out: until it is set back
        #[arg(long = "for", value_name = "TIME", value_parser = length)]
        lasts: Option<u64>,
    },
    /// Go back to the configuration's
    Reset,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    server: Server,
    /// Show the configuration in use and the last reload; read nothing
    #[arg(long)]
    status: bool,
}

pub(crate) fn log_level(arguments: LogLevel) -> Result<(), Failure> {
    let LogLevel { server, command } = arguments;
    server.run(async |api| {
        let request = match &command {
            Command::Show => api.request(Method::GET, &["log"]),
            Command::Set { filter, lasts } => {
                api.request(Method::PUT, &["log"]).json(&json!({ "filter": filter, "lasts_seconds": lasts }))
            }
            Command::Reset => api.request(Method::DELETE, &["log"]),
        };
        let answer = api.send(request).await?;
        if server.json {
            return say(&answer.to_string());
        }
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        let set = answer.get("set") == Some(&Value::Bool(true));
        let until = answer.get("until").and_then(Value::as_u64).map_or(String::new(), |at| format!(" until {at}"));
        let configured =
            if set { format!("  (set{until}; the configuration says {})", text("configured")) } else { String::new() };
        say(&format!("{}{configured}", text("filter")))
    })
}

pub(crate) fn reload(arguments: Reload) -> Result<(), Failure> {
    let Reload { server, status } = arguments;
    server.run(async |api| {
        let request = match status {
            true => api.request(Method::GET, &["config"]),
            false => api.request(Method::POST, &["config", "reload"]),
        };
        let answer = api.send(request).await?;
        if server.json {
            return say(&answer.to_string());
        }
        let list = |of: &Value, name: &str| {
            let all = of.get(name).and_then(Value::as_array).into_iter().flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        if status {
            let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
            say(&format!("{}  read at {}", text("file"), answer.get("loaded").unwrap_or(&Value::Null)))?;
        } else {
            say("the configuration was read again")?;
            for (what, name) in [("started", "workers_started"), ("left", "workers_left")] {
                for worker in list(&answer, name) {
                    say(&format!("worker {worker} {what}"))?;
                }
            }
        }
        for key in list(&answer, "waiting_for_restart") {
            say(&format!("{key} waits for a restart"))?;
        }
        let problems = answer.get("last_reload").map(|last| list(last, "problems")).unwrap_or_default();
        if problems.is_empty() {
            return Ok(());
        }
        for problem in &problems {
            say(problem)?;
        }
        Err(other("the last reload was refused, and changed nothing".to_owned()))
    })
}
