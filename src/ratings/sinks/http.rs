//! A webhook, signed as Standard Webhooks has it: one request an event, or one
//! for a batch of them.
//!
//! The body is the event (`application/cloudevents+json`), or an array of events
//! in their order (`application/cloudevents-batch+json`). Three headers go with
//! it: `webhook-id`, which is the event's id, or a hash of those of the batch,
//! and the same for every try, `webhook-timestamp` in Unix seconds, and
//! `webhook-signature`, `v1,` + base64(HMAC-SHA256(key, `id.timestamp.body`)),
//! one for each key, separated by spaces.
//!
//! A batch that is refused for good is halved until the event that is at fault
//! is alone; what is before and behind it is taken.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};
use sha2::{Digest as _, Sha256};
use tenantry_types::Secret;
use tokio::time::Instant;

use super::{BEGUN_WITHIN, Entry, Outcome, Sink, by_tenant};
use crate::keys::signature;

/// Tenants whose events are under way at once.
const TOGETHER: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// May hold what nobody else is to know.
    pub url: Secret,
    /// At least one; all of them sign, so that a receiver may change to a new
    /// one. `whsec_<base64>` is read as the Standard Webhooks key it is, any
    /// other text as its bytes.
    pub keys: Vec<Secret>,
    /// Sent along, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// For one request.
    pub timeout: Duration,
    /// Events of one request. With 1 the body is the event, with more an array.
    pub batch: usize,
}

pub(crate) struct HttpSink {
    client: Client,
    url: Url,
    keys: Vec<Vec<u8>>,
    batch: usize,
}

/// What a request holds.
struct Message {
    id: String,
    content_type: &'static str,
    body: String,
}

// === impl HttpSink ===

impl HttpSink {
    /// The error says which part of the configuration is wrong, without secrets.
    pub(crate) fn new(config: &HttpConfig) -> Result<Self, String> {
        let url = Url::parse(config.url.expose()).map_err(|error| format!("url: {error}"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err("url: only http and https are known".to_owned());
        }
        let keys: Vec<_> = config.keys.iter().map(key_of).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("keys: there is none".to_owned());
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let name = HeaderName::try_from(name).map_err(|_| format!("headers: {name:?} is not a header's name"))?;
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| format!("headers: the value of {name} has characters that no header has"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        // It takes the process's provider; where there is one already, nothing changes.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .default_headers(headers)
            .timeout(config.timeout)
            // The signature is for who was configured.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| format!("no client: {error}"))?;
        Ok(Self { client, url, keys, batch: config.batch.max(1) })
    }

    async fn post(&self, message: Message) -> Outcome {
        let Message { id, content_type, body } = message;
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).to_string();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, content_type)
            .header("webhook-id", &id)
            .header("webhook-signature", signed(&self.keys, &id, &timestamp, &body))
            .header("webhook-timestamp", timestamp)
            .body(body);
        match request.send().await {
            Ok(response) => judged(response.status(), response.headers()),
            // Without the address: it may hold a password.
            Err(error) => Outcome::later(error.without_url()),
        }
    }

    /// In their order, batch after batch; nothing goes out after one that is to
    /// come again.
    async fn post_batches(&self, entries: &[Entry]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(entries.len());
        // The next one to send is the last.
        let mut waiting: Vec<&[Entry]> = entries.chunks(self.batch).rev().collect();
        let end = Instant::now() + BEGUN_WITHIN;
        while let Some(batch) = waiting.pop() {
            if Instant::now() >= end {
                break;
            }
            match self.post(Message::batch(batch)).await {
                Outcome::Refused { .. } if batch.len() > 1 => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    waiting.extend([second, first]);
                }
                later @ Outcome::Later { .. } => {
                    outcomes.push(later);
                    break;
                }
                outcome => outcomes.extend(vec![outcome; batch.len()]),
            }
        }
        outcomes.resize(entries.len(), Outcome::Untried);
        outcomes
    }
}

impl Sink for HttpSink {
    fn deliver<'a>(&'a mut self, batch: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>> {
        let this = &*self;
        if this.batch > 1 {
            return Box::pin(this.post_batches(batch));
        }
        Box::pin(by_tenant(batch, TOGETHER, move |entry| this.post(Message::one(entry))))
    }
}

// === impl Message ===

impl Message {
    fn one(entry: &Entry) -> Self {
        let content_type = "application/cloudevents+json; charset=utf-8";
        Self { id: entry.id.clone(), content_type, body: entry.payload.clone() }
    }

    fn batch(entries: &[Entry]) -> Self {
        let mut hash = Sha256::new();
        for entry in entries {
            hash.update(&entry.id);
            hash.update([0]);
        }
        let id = format!("bat_{}", crate::keys::hex(&hash.finalize()[..16]));
        let events: Vec<&str> = entries.iter().map(|entry| entry.payload.as_str()).collect();
        let body = format!("[{}]", events.join(","));
        Self { id, content_type: "application/cloudevents-batch+json; charset=utf-8", body }
    }
}

/// Only what says that the event itself is wrong is for good: what an operator
/// can mend (a path, a permission) is tried again.
fn judged(status: StatusCode, headers: &HeaderMap) -> Outcome {
    const FOR_GOOD: [StatusCode; 3] =
        [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
    if status.is_success() {
        return Outcome::Taken;
    }
    let why = format!("the webhook answered {status}");
    if FOR_GOOD.contains(&status) {
        return Outcome::refused(why);
    }
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Outcome::Later { why, after: seconds.map(Duration::from_secs) }
}

fn signed(keys: &[Vec<u8>], id: &str, timestamp: &str, body: &str) -> String {
    let parts = [id, ".", timestamp, ".", body].map(str::as_bytes);
    let signatures = keys.iter().map(|key| format!("v1,{}", STANDARD.encode(signature(key, &parts))));
    signatures.collect::<Vec<_>>().join(" ")
}

fn key_of(secret: &Secret) -> Result<Vec<u8>, String> {
    let key = match secret.expose().strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| "keys: what follows whsec_ is not base64".to_owned())?,
        None => secret.expose().as_bytes().to_vec(),
    };
    if key.len() < crate::keys::SHORTEST_KEY {
        return Err(format!("keys: one has fewer than {} bytes", crate::keys::SHORTEST_KEY));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let key = key_of(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).expect("a key");
        let signature = signed(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn answers_about_the_event_are_for_good_and_others_are_not() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        for status in [400, 413, 422] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(matches!(judged(status, &headers), Outcome::Refused { .. }), "{status}");
        }
        for status in [301, 401, 403, 404, 408, 410, 429, 500, 503] {
            let status = StatusCode::from_u16(status).expect("a status");
            let Outcome::Later { after, .. } = judged(status, &headers) else { panic!("{status}") };
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
        assert_eq!(judged(StatusCode::ACCEPTED, &headers), Outcome::Taken);
    }
}
