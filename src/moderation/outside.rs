//! Judges in other processes: any endpoint that speaks OpenAI's `/v1/moderations`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::judge::{Outside, OutsideError, Sentence};
use crate::types::Secret;

/// Failures in a row after which a judge is left alone.
const FAILURES: u32 = 5;
/// For so long.
const ALONE: Duration = Duration::from_secs(10);
/// Of an answer.
const MAX_BYTES: usize = 1 << 20;

/// Leaves a judge alone that does not answer, and tries it again with one text.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

#[derive(Clone)]
pub struct EndpointConfig {
    /// Up to `/moderations`, with `/v1`.
    pub url: String,
    pub key: Option<Secret>,
    pub model: Option<String>,
    pub timeout: Duration,
    /// Whether a text that it does not judge is blocked.
    pub closed: bool,
}

pub struct Endpoint {
    client: reqwest::Client,
    url: String,
    config: EndpointConfig,
    breaker: Breaker,
}

#[derive(Serialize)]
struct Asked<'a> {
    input: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    flagged: bool,
    #[serde(default)]
    categories: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    category_scores: serde_json::Map<String, serde_json::Value>,
}

// === impl Breaker ===

impl Breaker {
    /// Whether it may be asked now. After its time alone, one may.
    pub fn allows(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            Some(until) if now < until => false,
            Some(_) => {
                state.until = Some(now + ALONE);
                true
            }
            None => true,
        }
    }

    pub fn answered(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    pub fn failed(&self, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.until = Some(now + ALONE);
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    pub fn new(client: reqwest::Client, config: EndpointConfig) -> Self {
        let url = format!("{}/moderations", config.url.trim_end_matches('/'));
        Self { client, url, config, breaker: Breaker::default() }
    }

    /// What it says, or why it says nothing and whether that is its fault.
    async fn ask(&self, text: &str) -> Result<Option<Sentence>, (String, bool)> {
        let asked = Asked { input: text, model: self.config.model.as_deref() };
        let mut request = self.client.post(&self.url).timeout(self.config.timeout).json(&asked);
        if let Some(key) = &self.config.key {
            request = request.bearer_auth(key.expose());
        }
        let lost = |error: reqwest::Error| (error.without_url().to_string(), true);
        let mut response = request.send().await.map_err(lost)?;
        if !response.status().is_success() {
            // What it refuses says nothing of what others ask.
            let status = response.status();
            return Err((format!("it answered {status}"), !status.is_client_error()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err((format!("its answer has over {MAX_BYTES} bytes"), true));
            }
        }
        // Not the error's own text, which may quote what was judged.
        let odd = |error: serde_json::Error| {
            (format!("its answer is not one, at line {} column {}", error.line(), error.column()), true)
        };
        let answer: Answer = serde_json::from_slice(&body).map_err(odd)?;
        let [answered] = answer.results.as_slice() else {
            return Err((format!("its answer has {} results for one text", answer.results.len()), true));
        };
        Ok(sentence(answered))
    }
}

/// The flagged category with the highest score.
fn sentence(answered: &Answered) -> Option<Sentence> {
    if !answered.flagged {
        return None;
    }
    let score = |category: &str| answered.category_scores.get(category).and_then(serde_json::Value::as_f64);
    let flagged = answered.categories.iter().filter(|(_, flagged)| flagged.as_bool() == Some(true));
    let scored = flagged.map(|(category, _)| (category.as_str(), score(category).unwrap_or(1.0)));
    let (category, score) = scored.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("flagged", 1.0));
    Some(Sentence { category: category.into(), score: score.clamp(0.0, 1.0) as f32 })
}

impl Outside for Endpoint {
    fn judge<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Option<Sentence>, OutsideError>> {
        Box::pin(async move {
            let closed = self.config.closed;
            if !self.breaker.allows(Instant::now()) {
                return Err(OutsideError { reason: "it is left alone after failures".to_owned(), closed });
            }
            match self.ask(text).await {
                Ok(sentence) => {
                    self.breaker.answered();
                    Ok(sentence)
                }
                Err((reason, its_fault)) => {
                    if its_fault {
                        self.breaker.failed(Instant::now());
                    }
                    Err(OutsideError { reason, closed })
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(value: serde_json::Value) -> Option<Sentence> {
        sentence(&serde_json::from_value(value).expect("an answer"))
    }

    #[test]
    fn the_worst_of_what_is_flagged_counts() {
        let categories = json!({ "hate": true, "harassment": true, "sexual": false });
        let scores = json!({ "hate": 0.7, "harassment": 0.9, "sexual": 1.0 });
        let found = answered(json!({ "flagged": true, "categories": categories, "category_scores": scores }));
        assert_eq!(found, Some(Sentence { category: "harassment".into(), score: 0.9 }));
        let categories = json!({ "hate": true });
        assert_eq!(answered(json!({ "flagged": false, "categories": categories })), None);
        let bare = answered(json!({ "flagged": true }));
        assert_eq!(bare, Some(Sentence { category: "flagged".into(), score: 1.0 }));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_left_alone_and_then_tried_once() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert!(breaker.allows(Instant::now()));
            breaker.failed(Instant::now());
        }
        assert!(!breaker.allows(Instant::now()));
        tokio::time::advance(ALONE).await;
        assert!(breaker.allows(Instant::now()));
        assert!(!breaker.allows(Instant::now()), "one is under way");
        breaker.answered();
        assert!(breaker.allows(Instant::now()) && breaker.allows(Instant::now()));
    }
}
