//! `/admin/v1`: publishing adapters, and what becomes of them; tenants, keys,
//! limits and policies; workers, usage, the log and the configuration.
//!
//! Operators and fine-tuners use it, on the operations listener ([`access`]).
//! Every change is told to the events' log.

mod access;
mod adapters;
mod answer;
mod control;
mod extract;
mod keys;
mod limits;
mod log;
mod policies;
mod publish;
mod status;
mod tenants;
mod usage;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use http::StatusCode;
use serde::Deserialize;

use super::fallback;
use super::ops::Coming;
use crate::gateway::Gateway;

pub use access::{Admin, AdminKey};
pub use control::{Configuration, Control, LogFilter, Reload, Steering};
pub(super) use publish::Uploads;

use answer::Failure;

#[derive(Clone)]
struct Api {
    admin: Admin,
    gateway: Coming,
    uploads: Uploads,
}

/// Every route of the admin API; there is no other way to add one.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    let mut routes = Vec::new();
    routes.extend(adapters::routes());
    routes.extend(control::routes());
    routes.extend(keys::routes());
    routes.extend(limits::routes());
    routes.extend(log::routes());
    routes.extend(policies::routes());
    routes.extend(status::routes());
    routes.extend(tenants::routes());
    routes.extend(usage::routes());
    routes.extend(workers::routes());
    routes
}

/// The paths of all of them.
#[cfg(test)]
pub(super) fn paths() -> Vec<&'static str> {
    routes().into_iter().map(|(path, _)| path).collect()
}

// === impl Admin ===

impl Admin {
    pub(super) fn router(self, gateway: Coming, uploads: Uploads) -> Router {
        let api = Api { admin: self, gateway, uploads };
        let all = routes().into_iter();
        all.fold(Router::new(), |router, (path, methods)| router.route(path, methods))
            .method_not_allowed_fallback(fallback::ops_method_not_allowed)
            // Uploads are bounded as they are written.
            .layer(DefaultBodyLimit::disable())
            .route_layer(from_fn_with_state(api.clone(), access::authorised))
            .with_state(api)
    }
}

// === impl Api ===

impl Api {
    fn gateway(&self) -> Result<&Arc<Gateway>, Failure> {
        self.gateway.get().ok_or_else(starting)
    }

    fn control(&self) -> Result<&Arc<dyn Control>, Failure> {
        self.admin.steering.get().ok_or_else(starting)
    }
}

fn starting() -> Failure {
    let message = "The server is starting.".to_owned();
    Failure { status: StatusCode::SERVICE_UNAVAILABLE, code: "starting", message }
}

async fn body<T: for<'a> Deserialize<'a>>(request: Request) -> Result<T, Failure> {
    let bytes = axum::body::to_bytes(request.into_body(), 64 << 10).await;
    let bytes = bytes.map_err(|error| Failure::invalid(&error.to_string()))?;
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Failure::invalid("The body is not as expected: it has to be an object."));
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::invalid(&format!("The body is not as expected: {error}.")))
}
