//! Any endpoint that speaks OpenAI's interface: base models only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::Instant;

use super::RemoteConfig;
use super::chunk::ModelCheck;
use super::client::{Client, UrlError};
use super::request::{Dialect, Explicit, Media};
use super::upstream::{self, Fault, Generation};
use crate::types::{AdapterKey, BaseName};
use crate::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its `url` has the interface's version in it: `https://api.openai.com/v1`.
    pub remote: RemoteConfig,
}

pub struct OpenAi {
    client: Arc<Client>,
    remote: RemoteConfig,
    /// Why and when it could not be connected to.
    lost: Mutex<Option<(Instant, String)>>,
}

/// How long an endpoint that could not be connected to is left alone. Nobody
/// pays for being asked how it is, so only requests find out.
const LEFT_ALONE: Duration = Duration::from_secs(2);

const DIALECT: Dialect = Dialect {
    explicit: Explicit::Nothing,
    max_tokens: "max_completion_tokens",
    running_usage: false,
    forbidden: &[
        ("store", "keeps a tenant's text under our account"),
        ("background", "goes on when nobody waits"),
        ("user", "is the account's own"),
        ("service_tier", "is paid for by the account"),
        ("prompt_cache_key", "chooses whose cached prompts are used"),
    ],
    media: Media::Fetched,
};

// === impl OpenAi ===

impl OpenAi {
    pub fn start(config: Config) -> Result<Self, UrlError> {
        let remote = config.remote;
        let client = Client::new(&remote.url, remote.key.as_ref(), remote.connect_timeout)?;
        Ok(Self { client, remote, lost: Mutex::default() })
    }

    async fn start_generation(&self, call: Call) -> Result<Started, WorkerError> {
        let unavailable = WorkerError::Unavailable;
        let Some(model) = self.remote.model(&call.base) else {
            return Err(unavailable(format!("{} is not served here", call.base)));
        };
        if let Some(key) = &call.adapter {
            return Err(WorkerError::AdapterUnavailable(format!("this endpoint has no adapters, and not {key}")));
        }
        let check = ModelCheck::Dated(model.to_owned());
        let (request, trace) = (&*call.request, call.trace.as_ref());
        let generation = Generation { request, model, check, prefix: "", ours: Vec::new(), trace };
        let started = upstream::generate(&self.client, self.remote.timeouts(), &DIALECT, generation, unavailable).await;
        match &started {
            Ok(_) => self.reachable(None),
            Err(Fault::Unreachable(why)) => self.reachable(Some(why.as_str())),
            // What is wrong with one request, or one model, is no reason to keep others away.
            Err(Fault::Worker(_)) => {}
        }
        Ok(started?.into_started())
    }

    fn reachable(&self, why_not: Option<&str>) {
        let lost = why_not.map(|why| (Instant::now(), why.to_owned()));
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
    }
}

impl Driver for OpenAi {
    fn bases(&self) -> Vec<BaseName> {
        self.remote.bases()
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        self.start_generation(call).boxed()
    }

    fn accepts(&self, _: &AdapterKey) -> bool {
        false
    }

    fn load_adapter(&self, adapter: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        let error = WorkerError::AdapterUnavailable(format!("this endpoint has no adapters, and not {}", adapter.key));
        std::future::ready(Err(error)).boxed()
    }

    fn unload_adapter(&self, _: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn status(&self) -> Status {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let unhealthy = lost.as_ref().filter(|(when, _)| when.elapsed() < LEFT_ALONE).map(|(_, why)| why.clone());
        Status { unhealthy, ..Status::default() }
    }

    fn caches_prefixes(&self, _: Option<&AdapterKey>) -> bool {
        true
    }
}
