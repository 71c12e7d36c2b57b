//! What vLLM says of itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use super::key_of;
use crate::types::BaseName;
use crate::worker::http::client::Client;
use crate::worker::http::poll::{self, Lost};
use crate::worker::{Held, Status};

/// Below it, loading an adapter while others generate could give a running
/// request another tenant's adapter (vllm-project/vllm#47724).
const SAFE_LOADING: Version = (0, 25);

type Version = (u32, u32);

/// What is known of the engine that runs now. Another one, which is seen by
/// when it was started, is asked anew.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Engine>);

#[derive(Debug, Default)]
struct Engine {
    /// Of which run the rest is known.
    instance: Option<String>,
    version: Option<Version>,
}

/// What one look found.
pub(super) struct Seen {
    pub(super) status: Status,
    /// That it has read in all of its life.
    pub(super) prompt_tokens: f64,
}

// === impl Seen ===

impl Seen {
    /// Tells one run of the engine from the next.
    pub(super) fn instance(&self) -> &str {
        self.status.held.as_ref().map_or("", |held| &held.instance)
    }
}

// === impl Known ===

impl Known {
    pub(super) fn mixes_up_adapters(&self) -> bool {
        // One that does not say which it is may be.
        self.engine().version.is_none_or(|version| version < SAFE_LOADING)
    }

    /// Asks it how it is.
    pub(super) async fn look(&self, client: &Arc<Client>, models: &[(BaseName, String)]) -> Result<Seen, Lost> {
        let seen = self.ask(client, models).await;
        if seen.is_err() {
            // Whatever comes back may be another.
            self.engine().instance = None;
        }
        seen
    }

    async fn ask(&self, client: &Arc<Client>, models: &[(BaseName, String)]) -> Result<Seen, Lost> {
        let as_of = Instant::now();
        poll::text(client, "/health").await?;
        let (_, metrics) = poll::text(client, "/metrics").await?;
        // Its processes have no id of their own.
        let started = poll::metric(&metrics, "process_start_time_seconds");
        let instance = started.map_or_else(String::new, |it| it.to_string());
        self.meet(client, &instance).await;
        let (_, listed) = poll::text(client, "/v1/models").await?;
        let prompt_tokens = poll::metric(&metrics, "vllm:prompt_tokens_total").unwrap_or(0.0);
        Ok(Seen { status: status(models, &metrics, &listed, instance, as_of), prompt_tokens })
    }

    /// Asks an engine that is not known yet for its version.
    async fn meet(&self, client: &Arc<Client>, instance: &str) {
        if self.engine().instance.as_deref() == Some(instance) {
            return;
        }
        let answer = poll::text(client, "/version").await.ok();
        let version = answer.as_ref().and_then(|(_, text)| version(text));
        if version.is_some_and(|version| version < SAFE_LOADING) {
            warn!(
                ?version,
                "this vLLM may answer with another tenant's adapter while one is loaded: use 0.25 or later"
            );
        }
        // Where it did not say, it is asked again.
        *self.engine() = Engine { instance: answer.map(|_| instance.to_owned()), version };
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(models: &[(BaseName, String)], metrics: &str, listed: &str, instance: String, as_of: Instant) -> Status {
    let listed: Value = serde_json::from_str(listed).unwrap_or(Value::Null);
    let cards = listed.get("data").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = cards.filter_map(|card| card.get("id").and_then(Value::as_str)).collect();
    let missing = models.iter().find(|(_, model)| !names.contains(&model.as_str()));
    let count = |name: &str| poll::metric(metrics, name).unwrap_or(0.0) as u64;
    // What is resident is what is listed: `vllm:lora_requests_info` names only adapters with requests under way.
    let adapters = names.iter().filter_map(|name| Some((key_of(name)?, 0))).collect();
    Status {
        unhealthy: missing.map(|(base, model)| format!("it does not serve {base} as `{model}`")),
        batch_rows: count("vllm:num_requests_running"),
        waiting: count("vllm:num_requests_waiting"),
        // It tells the share that is in use, and not of what.
        kv_used: kv_used(metrics),
        held: Some(Arc::new(Held { instance, adapters, as_of })),
        ..Status::default()
    }
}

/// Of the fullest of its engines: a request is one engine's, and waits for that one.
fn kv_used(metrics: &str) -> Option<f32> {
    let used = poll::series(metrics, "vllm:kv_cache_usage_perc")
        .fold(None, |most: Option<f64>, used| Some(most.map_or(used, |most| most.max(used))));
    used.map(|used| used.clamp(0.0, 1.0) as f32)
}

/// The first two numbers of `0.32.0+cpu` or `0.26rc1`.
fn version(answer: &str) -> Option<Version> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let mut parts = answer.get("version")?.as_str()?.split('.');
    let mut number = || {
        let part = parts.next()?;
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..digits].parse::<u32>().ok()
    };
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_its_first_two_numbers() {
        let of = |text: &str| version(&serde_json::json!({ "version": text }).to_string());
        assert_eq!(of("0.32.0+cpu"), Some((0, 32)));
        assert_eq!(of("0.26rc1"), Some((0, 26)));
        assert_eq!(of("1.2"), Some((1, 2)));
        assert_eq!(of("dev"), None);
        assert_eq!(version("<html>"), None);
    }

    #[test]
    fn the_use_of_the_cache_is_that_of_the_fullest_engine() {
        let metrics = "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n";
        assert_eq!(kv_used(metrics), Some(0.5));
        assert_eq!(kv_used("vllm:num_requests_running 1\n"), None);
    }
}
