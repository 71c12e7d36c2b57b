//! `tenantry limits`: tenants' limits, and setting them while gateways run.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use super::api::{Server, other};
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
    /// Show a tenant's limits and what is left of each
    Show { tenant: String },
    /// Set limits in the place of the configuration's, such as
    /// `requests_per_minute=100`; what is not named is not limited
    Set {
        #[command(flatten)]
        of: Of,
        #[arg(required = true, value_name = "LIMIT=NUMBER")]
        limits: Vec<String>,
    },
    /// Go back to the configuration's
    Reset {
        #[command(flatten)]
        of: Of,
    },
}

/// Whose limits they are.
#[derive(Debug, Args)]
struct Of {
    tenant: String,
    /// Of one of its keys, by the key's name
    #[arg(long, conflicts_with = "model")]
    key: Option<String>,
    /// Of one of its model names
    #[arg(long)]
    model: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, command } = arguments;
    server.run(async |api| {
        let request = match &command {
            Command::Show { tenant } => api.request(Method::GET, &["tenants", tenant, "limits"]),
            Command::Set { of, limits } => api.request(Method::PUT, &of.path()).json(&read(limits)?),
            Command::Reset { of } => api.request(Method::DELETE, &of.path()),
        };
        let answer = api.send(request).await?;
        if server.json { say(&answer.to_string()) } else { tell(&answer) }
    })
}

fn read(limits: &[String]) -> Result<Map<String, Value>, Failure> {
    let one = |limit: &String| {
        let (name, number) = limit.split_once('=')?;
        Some((name.to_owned(), Value::from(number.parse::<u64>().ok()?)))
    };
    let read = |limit| one(limit).ok_or_else(|| other(format!("`{limit}` is not of the form requests_per_minute=100")));
    limits.iter().map(read).collect()
}

fn tell(answer: &Value) -> Result<(), Failure> {
    for card in answer.get("limits").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| card.get(name).and_then(Value::as_str).unwrap_or_default();
        let set = if card.get("set") == Some(&Value::Bool(true)) { "  (set while running)" } else { "" };
        say(&format!("{} {}{set}", text("scope"), text("name")))?;
        for (name, most) in card.get("limits").and_then(Value::as_object).into_iter().flatten() {
            let left = card.get("remaining").and_then(|left| left.get(name));
            let left = left.map_or_else(String::new, |left| format!("  remaining {left}"));
            say(&format!("  {name} {most}{left}"))?;
        }
    }
    Ok(())
}

// === impl Of ===

impl Of {
    fn path(&self) -> Vec<&str> {
        match (&self.key, &self.model) {
            (Some(key), _) => vec!["tenants", &self.tenant, "keys", key, "limits"],
            (None, Some(model)) => vec!["tenants", &self.tenant, "models", model, "limits"],
            (None, None) => vec!["tenants", &self.tenant, "limits"],
        }
    }
}
