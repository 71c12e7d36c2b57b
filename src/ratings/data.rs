//! `data` of the events about generations.

use serde::Serialize;
use serde_json::{Value, json};
use tenantry_types::{AdapterKey, TenantId};

use crate::event::{Blocked, Completed, Content, ContentPolicy, Side, Verdict, time};
use crate::keys::Hasher;

#[derive(Serialize)]
pub(crate) struct Adapter<'a> {
    name: &'a str,
    revision: u32,
    digest: &'a str,
}

#[derive(Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: u64,
}

#[derive(Serialize)]
pub(crate) struct CompletedData<'a> {
    generation_id: &'a str,
    model: &'a str,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<Adapter<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a str>,
    route: &'a str,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event: Option<String>,
    ended: String,
    usage: Usage,
    finish: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'a str>,
    guard: &'a [Verdict],
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Value>,
}

#[derive(Serialize)]
pub(crate) struct BlockedData<'a> {
    generation_id: &'a str,
    model: &'a str,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<Adapter<'a>>,
    route: &'a str,
    side: Side,
    categories: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Value>,
}

#[derive(Serialize)]
pub(crate) struct ChangedData<'a> {
    pub(crate) who: &'a str,
    pub(crate) action: &'a str,
    pub(crate) before: &'a Value,
    pub(crate) after: &'a Value,
}

/// How texts are kept.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'a> {
    pub(crate) policy: ContentPolicy,
    pub(crate) hasher: &'a Hasher,
    /// Bytes; what is longer is kept as if the policy did not keep it.
    pub(crate) longest: usize,
}

pub(crate) fn completed<'a>(end: &'a Completed, id: &'a str, texts: Texts<'_>) -> CompletedData<'a> {
    CompletedData {
        generation_id: id,
        model: &end.model,
        base: &end.base,
        adapter: end.adapter.as_ref().map(Adapter::of),
        worker: end.worker.as_deref(),
        route: end.route,
        started: time(end.started),
        first_event: end.first_event.map(time),
        ended: time(end.ended),
        usage: Usage {
            prompt_tokens: end.prompt_tokens,
            completion_tokens: end.completion_tokens,
            cached_tokens: end.cached_tokens,
        },
        finish: end.finish,
        finish_reason: end.finish_reason,
        guard: &end.guard,
        content: end.content.as_ref().map(|content| texts.kept(&end.tenant, content)),
    }
}

pub(crate) fn blocked<'a>(block: &'a Blocked, id: &'a str, texts: Texts<'_>) -> BlockedData<'a> {
    BlockedData {
        generation_id: id,
        model: &block.model,
        base: &block.base,
        adapter: block.adapter.as_ref().map(Adapter::of),
        route: block.route,
        side: block.side,
        categories: &block.categories,
        content: block.content.as_ref().map(|content| texts.kept(&block.tenant, content)),
    }
}

impl<'a> Adapter<'a> {
    fn of(key: &'a AdapterKey) -> Self {
        Self { name: &key.name, revision: key.revision, digest: &key.digest }
    }
}

impl Texts<'_> {
    /// The texts themselves with `"kept": true`, or with `"kept": false` their
    /// lengths in bytes and their hashes.
    fn kept(&self, tenant: &TenantId, content: &Content) -> Value {
        let prompt = content.prompt.as_ref().map(|prompt| match prompt {
            Value::String(text) => text.clone(),
            messages => messages.to_string(),
        });
        let bytes = prompt.as_ref().map_or(0, String::len) + content.completions.iter().map(String::len).sum::<usize>();
        if self.policy == ContentPolicy::Keep && bytes <= self.longest {
            return json!({ "kept": true, "prompt": content.prompt, "completions": content.completions });
        }
        let digest = |text: &String| json!({ "bytes": text.len(), "hash": self.hasher.text(tenant, text) });
        json!({
            "kept": false,
            "prompt": prompt.as_ref().map(digest),
            "completions": content.completions.iter().map(digest).collect::<Vec<_>>(),
        })
    }
}
