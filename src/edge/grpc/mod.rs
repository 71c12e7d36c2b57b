//! The gRPC edge: inference, health and reflection, as gRPC and as gRPC-Web,
//! in one [`axum::Router`] that shares a port with the HTTP edge.
//!
//! What it does not do: no generation logic (the gateway's), no CORS and no
//! listener (the server's, for both edges).

mod convert;
mod gate;
mod health;
mod inference;
pub mod pb;
mod ratings;
mod status;
mod timeout;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;
use tonic_web::GrpcWebLayer;

use crate::gateway::Gateway;

use gate::Gate;
use health::Health;
use inference::Inference;
use pb::inference_server::InferenceServer;
use pb::ratings_server::RatingsServer;
use ratings::Ratings;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The longest request message, in bytes.
    pub max_message_bytes: usize,
}

/// What the health service answers by.
#[derive(Clone)]
pub struct Readiness {
    /// What keeps the server from serving; empty when it can.
    pub not_ready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Turned when the server begins to shut down.
    pub draining: CancellationToken,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_message_bytes: 4 << 20 }
    }
}

/// The routes of all gRPC services. Has no fallback, so that it can be merged
/// with other routes; [`unknown_path`] answers what would reach one.
pub fn router(gateway: Arc<Gateway>, config: Config, readiness: Readiness) -> Router {
    let inference =
        InferenceServer::new(Inference::new(gateway.clone())).max_decoding_message_size(config.max_message_bytes);
    let ratings = RatingsServer::new(Ratings::new(gateway.clone())).max_decoding_message_size(config.max_message_bytes);
    let gate = from_fn_with_state(Gate::new(gateway, config), gate::authenticated);
    let inference = routes(Routes::new(inference).add_service(ratings)).route_layer(gate);

    let open = Routes::new(HealthServer::new(Health::new(readiness)))
        .add_service(reflection().build_v1().expect(DESCRIPTORS))
        .add_service(reflection().build_v1alpha().expect(DESCRIPTORS));

    inference.merge(routes(open)).route_layer(GrpcWebLayer::new()).route_layer(from_fn(gate::speaks))
}

/// Whether a request is gRPC or gRPC-Web, and so must never get an answer in
/// HTML or JSON.
pub fn speaks_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a gRPC request whose path no route takes.
pub fn unknown_path(gateway: &Gateway, headers: &HeaderMap) -> Response {
    let mut response = gate::unknown_path(gateway);
    // A gRPC-Web client reads the status from the headers of an answer of its own type.
    if let Some(spoken) = headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, spoken.clone());
    }
    response
}

const DESCRIPTORS: &str = "the descriptors are compiled in";

fn reflection() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// The services' routes without tonic's own fallback, which would keep the
/// router from being merged.
fn routes(services: Routes) -> Router {
    services.prepare().into_axum_router().reset_fallback()
}
