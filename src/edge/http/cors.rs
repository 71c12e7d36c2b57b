//! Which pages of other origins a browser lets read our answers. None, unless
//! the configuration names them.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    pub allow_origins: AllowOrigins,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowOrigins {
    /// `*`. Keys travel in a header that no browser sends by itself.
    Any,
    List(Vec<HeaderValue>),
}

/// Headers of ours, or of gRPC-Web, that a page may read.
const EXPOSED: [&str; 17] = [
    "x-request-id",
    "x-generation-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "tenantry-error-code",
    "tenantry-error-param",
];

// === impl Cors ===

impl Cors {
    pub(super) fn layer(&self) -> CorsLayer {
        let origins = match &self.allow_origins {
            AllowOrigins::Any => AllowOrigin::any(),
            AllowOrigins::List(origins) => AllowOrigin::list(origins.iter().cloned()),
        };
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST])
            // `*` would leave out `authorization`, and the stock clients send a dozen of their own.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(ExposeHeaders::list(EXPOSED.map(HeaderName::from_static)))
            .max_age(self.max_age)
    }
}
