//! Any endpoint that speaks OpenAI's interface: base models only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::Instant;

use super::RemoteConfig;
use super::chunk::ModelCheck;
use super::client::{Client, UrlError};
use super::request::{Dialect, Explicit, Media};
use super::upstream::{self, Answer, Generation};
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
        let check = ModelCheck::StartsWith(model.to_owned());
        let generation = Generation { request: &call.request, model, check, prefix: "", ours: Vec::new() };
        let started = upstream::generate(&self.client, self.remote.timeouts(), &DIALECT, generation, unavailable).await;
        let lost = match &started {
            Err(WorkerError::Unavailable(why)) => Some((Instant::now(), why.clone())),
            _ => None,
        };
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
        started.map(Answer::into_started)
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

    fn caches_prefixes(&self) -> bool {
        true
    }
}
