//! llama.cpp's server: its adapters are those it was started with.
//!
//! Without a list of adapters it answers with all of them at once, or from a
//! cache that another one filled. So every request names every adapter with
//! its share, and the server is told at its start to apply none by itself.
//!
//! A request that waits there for a slot stays when its client goes: each token
//! of the others begins the wait for that anew. So no more are sent than it has
//! slots, and the rest waits here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

use super::RemoteConfig;
use super::chunk::ModelCheck;
use super::client::{Client, UrlError};
use super::places::Places;
use super::poll::{self, Lost, Watch};
use super::request::{Dialect, Explicit, Media};
use super::upstream::{self, Generation};
use crate::types::{AdapterKey, BaseName, TenantId};
use crate::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// With one base model.
    pub remote: RemoteConfig,
    pub adapters: Vec<FixedAdapter>,
}

/// An adapter that the server was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedAdapter {
    pub tenant: TenantId,
    pub name: Arc<str>,
    pub revision: u32,
    /// The name of its file in `--lora`.
    pub file: String,
}

pub struct LlamaCpp {
    client: Arc<Client>,
    remote: RemoteConfig,
    adapters: Vec<FixedAdapter>,
    server: Arc<Mutex<Server>>,
    places: Arc<Places>,
    watch: Watch,
}

/// What is known of the running server.
#[derive(Default)]
struct Server {
    /// When it had last said so; `None` before the first time.
    as_of: Option<Instant>,
    instance: String,
    /// File name → id.
    ids: HashMap<String, u64>,
    all: Vec<u64>,
}

/// The longest that a request waits for the server's list of adapters.
const LIST: Duration = Duration::from_secs(5);

const DIALECT: Dialect = Dialect {
    explicit: Explicit::All { repetition_penalty: "repeat_penalty" },
    max_tokens: "max_tokens",
    running_usage: false,
    forbidden: &[
        ("lora", "chooses adapters"),
        // What reaches other requests' caches.
        ("id_slot", "chooses whose cache is used"),
        ("cache_prompt", "is set by what is safe"),
        ("n_cache_reuse", "reuses other prompts' caches"),
        ("n_keep", "changes the context's meaning"),
        ("n_discard", "changes the context's meaning"),
        // Other names of what is limited here.
        ("n_predict", "is another name of max_tokens"),
        ("max_completion_tokens", "is another name of max_tokens"),
        ("n_cmpl", "is another name of n"),
        ("n_probs", "is another name of logprobs"),
        ("repetition_penalty", "is known here by another name"),
        // What shows the worker's inside, or another form of answer.
        ("verbose", "shows the worker's files and settings"),
        ("response_fields", "leaves out what is checked"),
        ("sse_ping_interval", "hides that the worker stalls"),
        // What the worker would run.
        ("chat_template", "a template runs at the worker"),
        ("chat_template_kwargs.chat_template", "a template runs at the worker"),
        ("chat_parser", "a parser runs at the worker"),
        ("grammar", "a deep one exhausts the worker's stack"),
        ("grammar_lazy", "belongs to a grammar"),
        ("grammar_triggers", "belongs to a grammar"),
    ],
    media: Media::InlineOnly,
};

// === impl LlamaCpp ===

impl LlamaCpp {
    /// Called inside a Tokio runtime, where the worker is then asked how it
    /// is; it may come up later.
    pub fn start(config: Config) -> Result<Self, UrlError> {
        let Config { remote, adapters } = config;
        let client = Client::new(&remote.url, remote.key.as_ref(), remote.connect_timeout)?;
        let server = Arc::new(Mutex::new(Server::default()));
        let places = Arc::new(Places::default());
        let (asked, known, sized, wanted) = (client.clone(), server.clone(), places.clone(), adapters.clone());
        let watch = Watch::start(remote.url.clone(), remote.poll_interval, move || {
            let (client, server, places, wanted) = (asked.clone(), known.clone(), sized.clone(), wanted.clone());
            async move { look(&client, &server, &places, &wanted).await }
        });
        Ok(Self { client, remote, adapters, server, places, watch })
    }

    /// Requests that wait here until the server has a slot for them.
    pub fn waiting(&self) -> u64 {
        self.places.waiting()
    }

    /// The full list of adapters for one request: one at its full share, the
    /// others at none.
    fn shares(&self, adapter: Option<&AdapterKey>) -> Result<Vec<Value>, WorkerError> {
        let server = self.server();
        if server.as_of.is_none() {
            // Without a list the server answers with all of its adapters.
            return Err(WorkerError::Unavailable("its adapters are not known yet".to_owned()));
        }
        let chosen = match adapter {
            None => None,
            Some(key) => Some(self.id(&server, key)?),
        };
        let share = |id: &u64| json!({ "id": id, "scale": if chosen == Some(*id) { 1.0 } else { 0.0 } });
        Ok(server.all.iter().map(share).collect())
    }

    fn id(&self, server: &Server, key: &AdapterKey) -> Result<u64, WorkerError> {
        let missing = |what: String| WorkerError::AdapterUnavailable(what);
        let fixed = self.fixed(key).ok_or_else(|| missing(format!("the server was not started with {key}")))?;
        let id = server.ids.get(&fixed.file).copied();
        id.ok_or_else(|| missing(format!("the server has no adapter from a file `{}`", fixed.file)))
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the ids of `shares` are those of the server that
    /// answers. A connection that was made before the server last said what it
    /// has is that server's; behind a newer one may be the next run of it,
    /// with other ids.
    async fn same_server(
        &self,
        connected: Instant,
        adapter: Option<&AdapterKey>,
        shares: &[Value],
    ) -> Result<(), WorkerError> {
        let asked_since = self.server().as_of.is_some_and(|as_of| connected < as_of);
        if !asked_since {
            let listed = tokio::time::timeout(LIST, listed(&self.client)).await;
            let listed = listed.unwrap_or_else(|_| Err(Lost::Late("it does not say which adapters it has".to_owned())));
            let listed = listed.map_err(|(Lost::Gone(why) | Lost::Late(why))| WorkerError::Unavailable(why))?;
            let mut server = self.server();
            let instance = std::mem::take(&mut server.instance);
            *server = Server::of(Instant::now(), instance, &listed);
        }
        if self.shares(adapter)? == shares {
            return Ok(());
        }
        Err(WorkerError::Unavailable("it was started anew with other adapters".to_owned()))
    }

    fn fixed(&self, key: &AdapterKey) -> Option<&FixedAdapter> {
        let same = |it: &&FixedAdapter| it.tenant == key.tenant && it.name == key.name && it.revision == key.revision;
        self.adapters.iter().find(same)
    }
}

impl Driver for LlamaCpp {
    fn bases(&self) -> Vec<BaseName> {
        self.remote.bases()
    }

    fn text_of<'a>(&'a self, _: &'a BaseName, tokens: &'a [u32]) -> BoxFuture<'a, Option<String>> {
        async move {
            let body = serde_json::json!({ "tokens": tokens });
            upstream::text_of(&self.client, &self.remote, &body, "content").await
        }
        .boxed()
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        async move {
            let Some(model) = self.remote.model(&call.base) else {
                return Err(WorkerError::Unavailable(format!("{} is not served here", call.base)));
            };
            let place = self.places.take(call.request.choices).await;
            let shares = self.shares(call.adapter.as_ref())?;
            let mut ours = if shares.is_empty() { Vec::new() } else { vec![("lora", Value::from(shares.clone()))] };
            if call.adapter.is_none() {
                // It keeps prompts as long as the list of adapters is the same, and every tenant's list of
                // none is: how much of a prompt was kept would tell another's.
                ours.push(("cache_prompt", Value::Bool(false)));
            }
            let check = ModelCheck::Equal(model.to_owned());
            let generation =
                Generation { request: &call.request, model, check, prefix: "/v1", ours, trace: call.trace.as_ref() };
            let timeouts = self.remote.timeouts();
            let missing = WorkerError::Unavailable;
            let answer = upstream::generate(&self.client, timeouts, &DIALECT, generation, missing).await?;
            self.same_server(answer.connected(), call.adapter.as_ref(), &shares).await?;
            let Started { prompt_tokens, events } = answer.into_started();
            Ok(Started { prompt_tokens, events: place.with(events) })
        }
        .boxed()
    }

    fn accepts(&self, adapter: &AdapterKey) -> bool {
        let server = self.server();
        // Before the server has said what it has, its configuration counts.
        self.fixed(adapter).is_some_and(|fixed| server.as_of.is_none() || server.ids.contains_key(&fixed.file))
    }

    fn load_adapter(&self, adapter: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        let server = self.server();
        // It takes memory whether or not it is used, so it is not counted against what may be loaded.
        let there = self.id(&server, &adapter.key).map(|_| LoadedAdapter { bytes: 0 });
        std::future::ready(there).boxed()
    }

    fn unload_adapter(&self, _: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn status(&self) -> Status {
        let mut status = self.watch.status();
        status.waiting += self.places.waiting();
        status
    }

    fn caches_prefixes(&self, adapter: Option<&AdapterKey>) -> bool {
        adapter.is_some()
    }
}

async fn look(
    client: &Arc<Client>,
    server: &Mutex<Server>,
    places: &Places,
    wanted: &[FixedAdapter],
) -> Result<Status, Lost> {
    poll::text(client, "/health").await?;
    let slots = poll::text(client, "/slots").await.ok();
    let slots: Value = slots.and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or(Value::Null);
    let busy = |slot: &&Value| slot.get("is_processing") == Some(&Value::Bool(true));
    let batch_rows = slots.as_array().map_or(0, |slots| slots.iter().filter(busy).count() as u64);
    // One that does not say it now has as many as before.
    if let Some(all) = slots.as_array().and_then(|slots| u32::try_from(slots.len()).ok()).filter(|all| *all > 0) {
        places.resize(all);
    }
    // Both are switched on by arguments of its start.
    let metrics = poll::text(client, "/metrics").await.ok();
    let waiting = metrics.as_ref().and_then(|(_, text)| poll::metric(text, "llamacpp:requests_deferred"));
    let started = metrics.as_ref().and_then(|(headers, _)| headers.get("process-start-time-unix"));
    let instance = started.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();

    let listed = listed(client).await?;
    let found = Server::of(Instant::now(), instance, &listed);
    let (new, apply) = {
        let mut known = server.lock().unwrap_or_else(PoisonError::into_inner);
        let new = known.instance != found.instance || known.ids != found.ids;
        *known = found;
        (new, listed.iter().any(|it| it.get("scale").and_then(Value::as_f64).is_some_and(|scale| scale != 0.0)))
    };
    if apply {
        // None by itself.
        client.post("/lora-adapters", b"[]".to_vec()).await?.bytes(upstream::MAX_ANSWER).await?;
    }
    if new {
        let server = server.lock().unwrap_or_else(PoisonError::into_inner);
        for adapter in wanted.iter().filter(|adapter| !server.ids.contains_key(&adapter.file)) {
            warn!(file = adapter.file, tenant = %adapter.tenant, name = %adapter.name, "the server was not started with this adapter, or with two of the name");
        }
    }
    // Nothing comes or goes, so there is no account to give.
    Ok(Status {
        batch_rows,
        waiting: waiting.unwrap_or(0.0) as u64,
        slots: places.places().map(u64::from),
        ..Status::default()
    })
}

/// The server's adapters. An answer in another form is no empty list: a
/// request without a list would get them all.
async fn listed(client: &Arc<Client>) -> Result<Vec<Value>, Lost> {
    let (_, text) = poll::text(client, "/lora-adapters").await?;
    match serde_json::from_str(&text) {
        Ok(Value::Array(listed)) => Ok(listed),
        _ => Err(Lost::Gone("it does not list its adapters".to_owned())),
    }
}

// === impl Server ===

impl Server {
    /// A file name that two adapters have leads to neither.
    fn of(as_of: Instant, instance: String, listed: &[Value]) -> Self {
        let mut server = Self { as_of: Some(as_of), instance, ..Self::default() };
        let mut twice = Vec::new();
        for adapter in listed {
            let Some(id) = adapter.get("id").and_then(Value::as_u64) else { continue };
            server.all.push(id);
            let path = adapter.get("path").and_then(Value::as_str).unwrap_or_default();
            let file = path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
            if server.ids.insert(file.clone(), id).is_some() {
                twice.push(file);
            }
        }
        server.ids.retain(|file, _| !twice.contains(file));
        server
    }
}
