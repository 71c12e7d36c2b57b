//! `tenantry policies`: the guard's policies, and giving them to tenants while
//! gateways run.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

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
    /// List those that the configuration names
    List,
    /// Show what a tenant was given in the place of the configuration's
    Show { tenant: String },
    /// Give a tenant a policy in the place of the configuration's
    Give {
        tenant: String,
        policy: String,
        /// For one of its model names alone
        #[arg(long)]
        model: Option<String>,
    },
    /// Go back to the configuration's
    Take {
        tenant: String,
        #[arg(long)]
        model: Option<String>,
    },
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, command } = arguments;
    server.run(async |api| {
        let of = |method, tenant: &str, model: &Option<String>| match model {
            Some(model) => api.request(method, &["tenants", tenant, "models", model, "policy"]),
            None => api.request(method, &["tenants", tenant, "policy"]),
        };
        let request = match &command {
            Command::List => api.request(Method::GET, &["policies"]),
            Command::Show { tenant } => of(Method::GET, tenant, &None),
            Command::Give { tenant, policy, model } => {
                of(Method::PUT, tenant, model).json(&json!({ "policy": policy }))
            }
            Command::Take { tenant, model } => of(Method::DELETE, tenant, model),
        };
        let answer = api.send(request).await?;
        if server.json { say(&answer.to_string()) } else { tell(&answer) }
    })
}

fn tell(answer: &Value) -> Result<(), Failure> {
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    for policy in answer.get("policies").and_then(Value::as_array).into_iter().flatten() {
        let side = |name: &str| match policy.get(name).filter(|side| !side.is_null()) {
            Some(side) => text(side, "action"),
            None => "off".to_owned(),
        };
        say(&format!("{}  prompt {}  output {}", text(policy, "name"), side("prompt"), side("output")))?;
    }
    let Some(given) = answer.get("given").and_then(Value::as_array) else { return Ok(()) };
    if given.is_empty() {
        return say(&format!("{}  as the configuration says", text(answer, "tenant")));
    }
    for one in given {
        let model = one.get("model").and_then(Value::as_str).unwrap_or("all models that have no other");
        let unknown = if one.get("known") == Some(&Value::Bool(false)) { "  (unknown now)" } else { "" };
        say(&format!("{}  {model}  {}{unknown}", text(answer, "tenant"), text(one, "policy")))?;
    }
    Ok(())
}
