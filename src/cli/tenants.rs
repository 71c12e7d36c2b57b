//! `tenantry tenants`: tenants that are made while gateways run.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

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
    /// List them, those of the configuration too
    List,
    /// Show one
    Show { tenant: String },
    /// Make one, on all gateways of the catalogue
    Create {
        tenant: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change one that was made so; what is not named stays
    Set {
        tenant: String,
        #[command(flatten)]
        settings: Settings,
        /// Have no model names but those that are published
        #[arg(long, conflicts_with = "models")]
        no_models: bool,
    },
    /// Let nobody of it in
    Disable { tenant: String },
    /// Let its keys open again
    Enable { tenant: String },
    /// Delete it with its keys, limits and policies
    Delete { tenant: String },
}

#[derive(Debug, Args)]
struct Settings {
    /// Its share beside that of others where workers are full
    #[arg(long)]
    weight: Option<u32>,
    #[arg(long, value_enum)]
    priority: Option<Priority>,
    /// Requests that may wait for one base model
    #[arg(long)]
    max_waiting: Option<u64>,
    /// A model name and what it stands for: a base model, or with
    /// `NAME=BASE/ADAPTER` one of the tenant's adapters. Where any is given they
    /// are all that there are
    #[arg(long = "model", value_name = "NAME=BASE[/ADAPTER]")]
    models: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Priority {
    Interactive,
    Batch,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, command } = arguments;
    server.run(async |api| {
        let disable = |tenant: &str, disabled: bool| {
            api.request(Method::PATCH, &["tenants", tenant]).json(&json!({ "disabled": disabled }))
        };
        let request = match &command {
            Command::List => api.request(Method::GET, &["tenants"]),
            Command::Show { tenant } => api.request(Method::GET, &["tenants", tenant]),
            Command::Create { tenant, settings } => {
                let mut body = settings.body()?;
                body.insert("id".to_owned(), tenant.as_str().into());
                api.request(Method::POST, &["tenants"]).json(&body)
            }
            Command::Set { tenant, settings, no_models } => {
                let mut body = settings.body()?;
                if *no_models {
                    body.insert("models".to_owned(), json!({}));
                }
                if body.is_empty() {
                    return Err(other("nothing is named that is to be changed".to_owned()));
                }
                api.request(Method::PATCH, &["tenants", tenant]).json(&body)
            }
            Command::Disable { tenant } => disable(tenant, true),
            Command::Enable { tenant } => disable(tenant, false),
            Command::Delete { tenant } => api.request(Method::DELETE, &["tenants", tenant]),
        };
        let answer = api.send(request).await?;
        if server.json { say(&answer.to_string()) } else { tell(&answer) }
    })
}

fn tell(answer: &Value) -> Result<(), Failure> {
    if answer.is_null() {
        return say("done");
    }
    match answer.get("tenants").and_then(Value::as_array) {
        Some(tenants) => tenants.iter().try_for_each(|tenant| say(&line(tenant))),
        None => say(&line(answer)),
    }
}

fn line(tenant: &Value) -> String {
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |name: &str| tenant.get(name).and_then(Value::as_u64).unwrap_or_default();
    let model = |model: &Value| {
        let adapter = model.get("adapter").and_then(Value::as_str).map_or(String::new(), |it| format!("/{it}"));
        let silent = if model.get("answers") == Some(&Value::Bool(false)) { " (no such adapter)" } else { "" };
        format!("{}={}{adapter}{silent}", text(model, "name"), text(model, "base"))
    };
    let models: Vec<String> = tenant.get("models").and_then(Value::as_array).into_iter().flatten().map(model).collect();
    let disabled = if tenant.get("disabled") == Some(&Value::Bool(true)) { "  disabled" } else { "" };
    format!(
        "{}  {}{disabled}  weight {}  {}  keys {}  models {}",
        text(tenant, "id"),
        text(tenant, "origin"),
        number("weight"),
        text(tenant, "priority"),
        number("keys"),
        models.join(", ")
    )
}

// === impl Settings ===

impl Settings {
    fn body(&self) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        let named = [
            ("weight", self.weight.map(Value::from)),
            ("priority", self.priority.map(|priority| priority.as_str().into())),
            ("max_waiting", self.max_waiting.map(Value::from)),
        ];
        body.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        if !self.models.is_empty() {
            let models = self.models.iter().map(|text| model(text)).collect::<Result<Map<_, _>, _>>()?;
            body.insert("models".to_owned(), models.into());
        }
        Ok(body)
    }
}

fn model(text: &str) -> Result<(String, Value), Failure> {
    let Some((name, stands_for)) = text.split_once('=') else {
        return Err(other(format!("`{text}` is not of the form NAME=BASE or NAME=BASE/ADAPTER")));
    };
    let alias = match stands_for.split_once('/') {
        Some((base, adapter)) => json!({ "base": base, "adapter": adapter }),
        None => json!({ "base": stands_for }),
    };
    Ok((name.to_owned(), alias))
}

// === impl Priority ===

impl Priority {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}
