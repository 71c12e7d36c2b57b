//! vLLM: adapters are loaded while it runs, by path.
//!
//! It checks no shapes and keys its prefix cache by an adapter's name and path,
//! so an adapter that comes here was validated before, and each has a name and
//! a folder that are no other's, ever: both hold its digest. Nothing is loaded
//! in place.

mod look;
mod sleep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use http::StatusCode;
use serde_json::{Value, json};

use super::RemoteConfig;
use super::chunk::ModelCheck;
use super::client::{Client, UrlError};
use super::poll::Watch;
use super::request::{Dialect, Explicit, Media};
use super::upstream::{self, Generation, MAX_ANSWER};
use crate::types::{AdapterKey, BaseName, TenantId};
use crate::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};
use look::Known;
use sleep::Sleeper;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub remote: RemoteConfig,
    /// How long nobody has to need the engine before it is put to sleep, where
    /// it has a sleep mode; `None` for never.
    pub sleep_after: Option<Duration>,
}

pub struct Vllm {
    client: Arc<Client>,
    remote: RemoteConfig,
    known: Arc<Known>,
    sleeper: Arc<Sleeper>,
    watch: Watch,
}

const DIALECT: Dialect = Dialect {
    explicit: Explicit::All { repetition_penalty: "repetition_penalty" },
    max_tokens: "max_tokens",
    running_usage: true,
    forbidden: &[
        // What names a model, an adapter or a file of the worker.
        ("lora_name", "names an adapter"),
        ("lora_path", "names an adapter"),
        ("lora_int_id", "names an adapter"),
        ("lora_request", "names an adapter"),
        ("load_inplace", "replaces an adapter"),
        // What reaches other requests, or their caches.
        ("cache_salt", "chooses whose cached prompts are used"),
        ("kv_transfer_params", "reaches other requests' caches"),
        ("ec_transfer_params", "reaches other requests' caches"),
        ("session_id", "may be another request's"),
        ("request_id", "may be another request's"),
        ("priority", "overtakes other tenants"),
        // What the worker would run or unpack.
        ("chat_template", "a template runs at the worker"),
        ("chat_template_kwargs.chat_template", "a template runs at the worker"),
        ("chat_template_kwargs.tokenize", "makes the worker tokenise while it renders"),
        ("logits_processors", "names code to run at the worker"),
        ("vllm_xargs", "whatever the worker's plugins make of it"),
        ("prompt_embeds", "is read as a tensor file"),
        ("mm_payload", "is unpacked at the worker"),
        ("mm_processor_kwargs", "changes how the worker's processors are built"),
        ("media_io_kwargs", "changes how much the worker decodes"),
        // What is counted otherwise than it is billed.
        ("max_completion_tokens", "is another name of max_tokens"),
        ("best_of", "generates more than is told"),
        ("use_beam_search", "generates more than is told"),
        ("return_mm_kwargs", "shows the worker's inside"),
        ("routed_experts_prompt_start", "shows the worker's inside"),
    ],
    media: Media::InlineOnly,
};

// === impl Vllm ===

impl Vllm {
    /// Called inside a Tokio runtime, where the worker is then asked how it
    /// is; it may come up later.
    pub fn start(config: Config) -> Result<Self, UrlError> {
        let Config { remote, sleep_after } = config;
        let client = Client::new(&remote.url, remote.key.as_ref(), remote.connect_timeout)?;
        let known = Arc::new(Known::default());
        let sleeper = Sleeper::new(client.clone(), sleep_after, remote.load_timeout);
        let (asked, models, engine, sleep) = (client.clone(), remote.models.clone(), known.clone(), sleeper.clone());
        let watch = Watch::start(remote.url.clone(), remote.poll_interval, move || {
            let (client, models, engine, sleeper) = (asked.clone(), models.clone(), engine.clone(), sleep.clone());
            async move {
                match engine.look(&client, &models).await {
                    Ok(seen) => {
                        sleeper.look(&seen).await;
                        Ok(seen.status)
                    }
                    Err(lost) => {
                        sleeper.forget();
                        Err(lost)
                    }
                }
            }
        });
        Ok(Self { client, remote, known, sleeper, watch })
    }

    async fn load(&self, load: AdapterLoad) -> Result<LoadedAdapter, WorkerError> {
        let unavailable = |what: String| WorkerError::AdapterUnavailable(what);
        let name = engine_name(&load.key);
        let folder = std::path::absolute(&load.folder).map_err(|error| unavailable(error.to_string()))?;
        let bytes = weights_bytes(&folder).await.map_err(unavailable)?;
        let body = json!({ "lora_name": name, "lora_path": folder });
        // Its memory is not there while it sleeps.
        let _busy = self.sleeper.awake().await.map_err(unavailable)?;
        let (status, text) = self.ask("/v1/load_lora_adapter", &body).await?;
        if status == StatusCode::OK {
            return Ok(LoadedAdapter { bytes });
        }
        let text = upstream::error_text(text.as_bytes());
        Err(match status.as_u16() {
            // The name is this artifact's and no other's.
            400 if text.contains("has already been loaded") => return Ok(LoadedAdapter { bytes }),
            404 => unavailable(format!("the worker does not find the folder: {text}")),
            // Said of artifacts with every status, 500 too.
            _ if is_about_artifact(&text) => WorkerError::AdapterInvalid(text),
            code => unavailable(format!("{code}: {text}")),
        })
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<(StatusCode, String), WorkerError> {
        let asking = async {
            let response = self.client.post(path, body.to_string().into_bytes()).await?;
            let status = response.status;
            let text = response.bytes(MAX_ANSWER).await?;
            Ok((status, String::from_utf8_lossy(&text).into_owned()))
        };
        let answered = tokio::time::timeout(self.remote.load_timeout, asking).await;
        let answered = answered.map_err(|_| WorkerError::AdapterUnavailable("it did not answer in time".to_owned()))?;
        answered.map_err(|error: super::client::ClientError| WorkerError::AdapterUnavailable(error.to_string()))
    }
}

impl Driver for Vllm {
    fn bases(&self) -> Vec<BaseName> {
        self.remote.bases()
    }

    fn text_of<'a>(&'a self, base: &'a BaseName, tokens: &'a [u32]) -> BoxFuture<'a, Option<String>> {
        async move {
            let body = json!({ "model": self.remote.model(base)?, "tokens": tokens });
            let _busy = self.sleeper.awake().await.ok()?;
            upstream::text_of(&self.client, &self.remote, &body, "prompt").await
        }
        .boxed()
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        async move {
            let Some(base) = self.remote.model(&call.base) else {
                return Err(WorkerError::Unavailable(format!("{} is not served here", call.base)));
            };
            let name = call.adapter.as_ref().map(engine_name);
            let model = name.as_deref().unwrap_or(base);
            let generation = Generation {
                request: &call.request,
                model,
                check: ModelCheck::Equal(model.to_owned()),
                prefix: "/v1",
                // Nobody learns from a quick answer what another tenant has asked.
                ours: vec![("cache_salt", Value::from(call.tenant.as_str()))],
                trace: call.trace.as_ref(),
            };
            let missing = |detail| match &call.adapter {
                Some(_) => WorkerError::AdapterMissing(detail),
                None => WorkerError::Unavailable(detail),
            };
            let busy = self.sleeper.awake().await.map_err(WorkerError::Unavailable)?;
            let answer =
                upstream::generate(&self.client, self.remote.timeouts(), &DIALECT, generation, missing).await?;
            Ok(answer.holding(busy).into_started())
        }
        .boxed()
    }

    fn load_adapter(&self, adapter: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        self.load(adapter).boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        async move {
            let body = json!({ "lora_name": engine_name(&key) });
            match self.ask("/v1/unload_lora_adapter", &body).await? {
                (StatusCode::OK | StatusCode::NOT_FOUND, _) => Ok(()),
                (status, text) => {
                    Err(WorkerError::Failed(format!("{}: {}", status.as_u16(), upstream::error_text(text.as_bytes()))))
                }
            }
        }
        .boxed()
    }

    fn status(&self) -> Status {
        let mut status = self.watch.status();
        if self.sleeper.is_asleep() {
            status.cold = self.remote.bases();
        }
        status
    }

    fn loads_only_when_idle(&self) -> bool {
        self.known.mixes_up_adapters()
    }

    fn caches_prefixes(&self, _: Option<&AdapterKey>) -> bool {
        true
    }
}

/// The adapter's name at the engine: of this artifact alone, and never again
/// of another.
fn engine_name(key: &AdapterKey) -> String {
    format!("{}/{}@{}-{}", key.tenant, key.name, key.revision, key.digest)
}

fn key_of(engine_name: &str) -> Option<AdapterKey> {
    let (tenant, rest) = engine_name.split_once('/')?;
    let (name, rest) = rest.rsplit_once('@')?;
    let (revision, digest) = rest.split_once('-')?;
    let key = AdapterKey {
        tenant: TenantId::new(tenant),
        name: name.into(),
        revision: revision.parse().ok()?,
        digest: digest.into(),
    };
    (digest.len() == 64).then_some(key)
}

/// vLLM's words for what is wrong with an artifact.
fn is_about_artifact(text: &str) -> bool {
    const WORDS: [&str; 7] = [
        "LoRA rank",
        "doesn't contain tensors",
        "expected target modules",
        "invalid header",
        "deserializing header",
        "HeaderTooLarge",
        "does not support",
    ];
    WORDS.iter().any(|words| text.contains(words))
}

async fn weights_bytes(folder: &Path) -> Result<u64, String> {
    let file: PathBuf = folder.join("adapter_model.safetensors");
    let look = move || std::fs::metadata(&file).map(|found| found.len()).map_err(|error| error.to_string());
    tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_name_leads_back_to_its_key_and_no_two_keys_have_one() {
        let key = |tenant: &str, name: &str, revision, digest: char| AdapterKey {
            tenant: TenantId::new(tenant),
            name: name.into(),
            revision,
            digest: digest.to_string().repeat(64).into(),
        };
        let keys = [
            key("acme", "a", 1, 'a'),
            key("acme", "a", 2, 'a'),
            key("acme", "a", 1, 'b'),
            key("acme", "b-1", 1, 'a'),
            key("globex", "a", 1, 'a'),
        ];
        for one in &keys {
            assert_eq!(key_of(&engine_name(one)).as_ref(), Some(one));
            assert_eq!(keys.iter().filter(|other| engine_name(other) == engine_name(one)).count(), 1);
        }
        assert_eq!(key_of("smollm2"), None);
        assert_eq!(key_of("org/model@1-short"), None);
    }
}
