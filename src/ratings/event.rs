//! The events, as CloudEvents 1.0 in structured JSON. `proto/events/v1/` has
//! their schemas, and `src/ratings/tests/ratings/golden/` an example of each.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_types::{AdapterKey, GenerationId, TenantId};

use crate::Thumb;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    #[serde(rename = "generation.completed")]
    Completed,
    #[serde(rename = "generation.rated")]
    Rated,
    #[serde(rename = "guard.blocked")]
    Blocked,
    #[serde(rename = "admin.changed")]
    Changed,
}

/// One CloudEvent. Its attributes stand in this order.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event<'a, D> {
    specversion: &'static str,
    pub(crate) id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: EventType,
    /// The generation, or what an operator has changed.
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    dataschema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    partitionkey: &'a str,
    data: D,
}

/// What a generation was, at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    pub generation: GenerationId,
    pub tenant: TenantId,
    /// As the client named it.
    pub model: String,
    pub base: String,
    pub adapter: Option<AdapterKey>,
    pub worker: Option<String>,
    /// `chat_completions`, …
    pub route: &'static str,
    pub started: SystemTime,
    /// When the worker began to answer.
    pub first_event: Option<SystemTime>,
    pub ended: SystemTime,
    /// Tokens.
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cached_tokens: u64,
    /// How it ended: `complete`, `client_gone`, …
    pub finish: &'static str,
    /// What the model said of it: `stop`, `length`, …
    pub finish_reason: Option<&'static str>,
    pub guard: Vec<Verdict>,
    /// `None` where there is none at hand.
    pub content: Option<Content>,
}

/// A generation that the guard did not let through, or stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocked {
    pub generation: GenerationId,
    pub tenant: TenantId,
    pub model: String,
    pub base: String,
    pub adapter: Option<AdapterKey>,
    pub route: &'static str,
    pub at: SystemTime,
    pub side: Side,
    pub categories: Vec<String>,
    /// What was blocked, and what led to it.
    pub content: Option<Content>,
}

/// What an operator has changed. It holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    pub who: String,
    /// Such as `key.created`.
    pub action: &'static str,
    /// Such as `tenants/acme/keys/main`.
    pub subject: String,
    /// Whose it is, where it is a tenant's.
    pub tenant: Option<TenantId>,
    pub at: SystemTime,
    /// `null` where there was none.
    pub before: Value,
    /// `null` where there is none any more.
    pub after: Value,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// A text, or messages as the client wrote them.
    pub prompt: Option<Value>,
    /// Of each choice.
    pub completions: Vec<String>,
}

/// What a tenant's policy says of its prompts and completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentPolicy {
    Keep,
    /// Their lengths and keyed hashes are kept alone.
    #[default]
    Digest,
}

/// What the guard found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub side: Side,
    pub action: Action,
    pub categories: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Prompt,
    Completion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Flag,
    Redact,
    Block,
}

/// `data` of `generation.rated`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RatedData<'a> {
    pub(crate) rating_id: &'a str,
    pub(crate) generation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thumb: Option<Thumb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) score: Option<u8>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) labels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) corrected_text: Option<&'a str>,
    /// Hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency_key: Option<&'a str>,
    /// The rating that this one takes the place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) supersedes: Option<&'a str>,
}

// === impl EventType ===

impl EventType {
    pub const ALL: [Self; 4] = [Self::Completed, Self::Rated, Self::Blocked, Self::Changed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "generation.completed",
            Self::Rated => "generation.rated",
            Self::Blocked => "guard.blocked",
            Self::Changed => "admin.changed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The `$id` of the schema of its data.
    pub(crate) fn schema(self) -> &'static str {
        match self {
            Self::Completed => "urn:tenantry:events:v1:generation.completed",
            Self::Rated => "urn:tenantry:events:v1:generation.rated",
            Self::Blocked => "urn:tenantry:events:v1:guard.blocked",
            Self::Changed => "urn:tenantry:events:v1:admin.changed",
        }
    }
}

// === impl Event ===

/// What an event says beside its data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) id: &'a str,
    pub(crate) source: &'a str,
    pub(crate) kind: EventType,
    pub(crate) subject: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) at: SystemTime,
}

impl<D: Serialize> Event<'_, D> {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("its keys are texts")
    }
}

impl Envelope<'_> {
    /// The event in JSON, on one line.
    pub(crate) fn json(&self, data: impl Serialize) -> String {
        self.keyed(Some(self.tenant), self.tenant, data)
    }

    /// As `json`, of `tenant` where it is of one, and kept in order by another key.
    pub(crate) fn keyed(&self, tenant: Option<&str>, partition: &str, data: impl Serialize) -> String {
        let event = Event {
            specversion: "1.0",
            id: self.id,
            source: self.source,
            kind: self.kind,
            subject: self.subject,
            time: time(self.at),
            datacontenttype: "application/json",
            dataschema: self.kind.schema(),
            tenant,
            partitionkey: partition,
            data,
        };
        event.to_json()
    }
}

/// RFC 3339, to the millisecond, UTC.
pub(crate) fn time(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Millis, true)
}
