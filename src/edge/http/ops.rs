//! The operations listener: metrics, health, readiness. It asks for no key,
//! and so listens on the loopback address unless told otherwise.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tracing::error;

use super::admin::{Admin, Uploads};
use super::generate::json;
use super::{error, fallback, status_page};
use crate::gateway::Gateway;
use crate::telemetry;
use crate::types::{Error, ErrorKind};

/// What keeps the process from serving, beside what the gateway knows: that it
/// starts, that it drains. Empty when nothing does.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The gateway, once there is one: operators want to look at a process that
/// still loads its models.
pub type Coming = Arc<OnceLock<Arc<Gateway>>>;

/// All HTTP endpoints, of both listeners.
const OPENAPI: &str = include_str!("../../../proto/openapi.json");

struct Ops {
    gateway: Coming,
    readiness: Readiness,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// Every route of the listener but those of the admin API; there is no other way to add one.
fn routes() -> [(&'static str, MethodRouter<Arc<Ops>>); 5] {
    [
        ("/status", get(status_page::page)),
        ("/metrics", get(metrics)),
        ("/healthz", get(async || "ok")),
        ("/readyz", get(ready)),
        ("/openapi.json", get(async || json(OPENAPI.into()))),
    ]
}

pub fn ops_router(gateway: Coming, admin: Admin, readiness: Readiness) -> Router {
    let admin = admin.router(gateway.clone(), Uploads::default());
    let all = routes().into_iter();
    all.fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .method_not_allowed_fallback(fallback::ops_method_not_allowed)
        .fallback(fallback::ops_unknown_path)
        .with_state(Arc::new(Ops { gateway, readiness }))
        .merge(admin)
}

/// The paths of all routes of the listener.
#[cfg(test)]
pub(super) fn paths() -> Vec<&'static str> {
    routes().into_iter().map(|(path, _)| path).chain(super::admin::paths()).collect()
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    let Some(gateway) = ops.gateway.get() else {
        return error::response(&Error::new(ErrorKind::NoWorker, "The server is starting."));
    };
    // Thousands of series take a while to write, and others wait for their tokens.
    let gateway = gateway.clone();
    let rendered = tokio::task::spawn_blocking(move || gateway.render_metrics()).await;
    match rendered.unwrap_or_else(|_| Err(Error::internal("writing the metrics panicked"))) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(telemetry::CONTENT_TYPE));
            response
        }
        Err(failure) => {
            error!(error = failure.detail(), "metrics");
            error::response(&failure)
        }
    }
}

async fn ready(State(ops): State<Arc<Ops>>) -> Response {
    let mut reasons = (ops.readiness)();
    reasons.extend(ops.gateway.get().map(|gateway| gateway.not_ready()).unwrap_or_default());
    let (code, status) =
        if reasons.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    let body = serde_json::to_vec(&Ready { status, reasons }).expect("reasons are texts");
    let mut response = json(body.into());
    *response.status_mut() = code;
    response
}
