//! `tenantry usage`: what tenants have used, by day, tenant, key and model.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::api::Server;
use super::{Failure, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Of one tenant alone
    #[arg(long)]
    tenant: Option<String>,
    /// The first day, of UTC, such as 2026-11-01; 30 days where left out
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day, of UTC; today where left out
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, tenant, from, to } = arguments;
    server.run(async |api| {
        let named = [("tenant", &tenant), ("from", &from), ("to", &to)];
        let query: Vec<(&str, &String)> =
            named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        let answer = api.send(api.request(Method::GET, &["usage"]).query(&query)).await?;
        if server.json { say(&answer.to_string()) } else { tell(&answer) }
    })
}

fn tell(answer: &Value) -> Result<(), Failure> {
    let text = |line: &Value, name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let counts = |line: &Value| {
        let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or_default();
        format!(
            "requests {}  input {}  output {}  cached {}",
            number("requests"),
            number("input_tokens"),
            number("output_tokens"),
            number("cached_tokens")
        )
    };
    for line in answer.get("data").and_then(Value::as_array).into_iter().flatten() {
        let [day, tenant, key, model] = ["day", "tenant", "key", "model"].map(|name| text(line, name));
        say(&format!("{day}  {tenant}  {key}  {model}  {}", counts(line)))?;
    }
    let total = answer.get("total").map(counts).unwrap_or_default();
    say(&format!("{} to {}  total  {total}", text(answer, "from"), text(answer, "to")))
}
