//! The HTTP edge: OpenAI's interface, the playground, and the operations
//! endpoints. It reads requests and writes answers; what happens between is
//! the gateway's business.
//!
//! An error that this edge finds itself is recorded through [`Edge::refuse`],
//! one that the gateway returns was recorded there: each exactly once.

mod admin;
mod body;
mod cors;
mod error;
mod fallback;
mod generate;
mod limits;
mod models;
mod moderations;
mod openai;
mod ops;
mod parse;
mod playground;
mod ratings;
mod request_id;
mod sse;
mod status_page;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::Semaphore;

use crate::gateway::Gateway;
use crate::types::{Caller, Error, Route};

pub use admin::{Admin, AdminKey, Configuration, Control, LogFilter, Reload, Steering};
pub use cors::{AllowOrigins, Cors};
pub use ops::{Coming, Readiness, ops_router};

use playground::Playground;

/// How many large bodies are parsed at once. Each takes milliseconds of a core.
const PARSERS: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub max_body_bytes: usize,
    /// The longest that a request's body may take to arrive.
    pub body_read_timeout: Duration,
    /// The longest silence of a stream. A stream that has not begun by then
    /// begins with a comment, and with it gives up its true status.
    pub hold: Duration,
    pub cors: Option<Cors>,
    /// Public keys that the playground offers.
    pub demo_keys: Vec<String>,
}

/// What every handler reads.
struct Edge {
    gateway: Arc<Gateway>,
    /// One permit for each large body that is being parsed.
    parsers: Arc<Semaphore>,
    playground: Playground,
    config: Config,
}

/// OpenAI's two interfaces to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Chat,
    Completions,
}

/// A route, and what the guard has to do with it.
struct Endpoint {
    path: &'static str,
    methods: MethodRouter<Arc<Edge>>,
    /// Read by the test that no route goes by the guard.
    #[cfg_attr(not(test), expect(dead_code))]
    guarded: Guarded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guarded {
    /// What the client wrote is judged before anything reads it, and what it is
    /// answered before it is sent.
    Judged,
    /// It needs no guard, since …
    Not(&'static str),
}

/// Every route that a tenant can reach over HTTP; there is no other way to add one.
fn routes() -> [Endpoint; 9] {
    let route = |path, methods, guarded| Endpoint { path, methods, guarded };
    [
        route("/", get(playground::page), Guarded::Not("it is a page of ours")),
        route("/v1/chat/completions", post(generate::chat_completions), Guarded::Judged),
        route("/v1/completions", post(generate::completions), Guarded::Judged),
        route(
            "/v1/moderations",
            post(moderations::moderations),
            Guarded::Not("it tells what the guard says, and no model reads it"),
        ),
        route("/v1/models", get(models::list), Guarded::Not("it tells names of the configuration")),
        route("/v1/models/{*name}", get(models::one), Guarded::Not("it tells a name of the configuration")),
        route("/v1/ratings", post(ratings::rate), Guarded::Not("no model reads it, and nobody is answered with it")),
        route("/v1/ratings/summary", get(ratings::summary), Guarded::Not("it tells numbers")),
        route("/v1/usage", get(usage::usage), Guarded::Not("it tells numbers")),
    ]
}

/// Everything that tenants reach: HTTP, and `grpc`'s services on the same port.
pub fn public_router(gateway: Arc<Gateway>, config: Config, grpc: Router) -> Router {
    let cors = config.cors.as_ref().map(Cors::layer);
    let traces = gateway.traces().clone();
    let all = routes().into_iter();
    let router = all.fold(Router::new(), |router, Endpoint { path, methods, .. }| router.route(path, methods));
    let router = router
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .fallback(fallback::unknown_path)
        .with_state(Arc::new(Edge {
            gateway,
            parsers: Arc::new(Semaphore::new(PARSERS)),
            playground: Playground::new(&config.demo_keys),
            config,
        }))
        .merge(grpc.reset_fallback());
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(axum::middleware::from_fn_with_state(traces, request_id::attach))
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            body_read_timeout: Duration::from_secs(30),
            hold: Duration::from_secs(10),
            cors: None,
            demo_keys: Vec::new(),
        }
    }
}

// === impl Edge ===

impl Edge {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        self.gateway.authenticate(headers.get(AUTHORIZATION).map(|value| value.as_bytes()))
    }

    /// Records and answers an error that the gateway has not seen.
    fn refuse(&self, caller: Option<&Caller>, route: &'static str, error: &Error) -> Response {
        self.gateway.record_refusal(caller.map(|caller| &*caller.tenant), route, error);
        error::response(error)
    }

    /// The answer, with how its receiver stands with its limits.
    fn told(&self, caller: &Caller, model: Option<&str>, mut response: Response) -> Response {
        limits::attach(response.headers_mut(), self.gateway.standing(caller, model));
        response
    }
}

// === impl Api ===

impl Api {
    fn route(self) -> Route {
        match self {
            Self::Chat => Route::ChatCompletions,
            Self::Completions => Route::Completions,
        }
    }
}
