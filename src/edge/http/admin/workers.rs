//! `/admin/v1/workers`: how the workers are, and taking them out of service.

use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;
use serde::Serialize;

use super::Api;
use super::access::Who;
use super::answer::{Failure, answer, short};
use super::extract::Path;
use crate::gateway::WorkerCard;

#[derive(Serialize)]
struct Workers {
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Worker {
    name: String,
    /// `healthy`, `unhealthy`, `failing`, `draining` or `restoring`.
    state: &'static str,
    unhealthy: Option<String>,
    bases: Vec<String>,
    cold: Vec<String>,
    leases: u32,
    batch_rows: u64,
    waiting: u64,
    adapters_resident: usize,
    adapters_quarantined: usize,
}

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 3] {
    [
        ("/admin/v1/workers", get(list)),
        ("/admin/v1/workers/{name}/drain", post(drain)),
        ("/admin/v1/workers/{name}/undrain", post(undrain)),
    ]
}

async fn list(State(api): State<Api>) -> Result<Response, Response> {
    let gateway = api.gateway().map_err(Failure::response)?;
    let workers = gateway.workers().into_iter().map(Worker::of).collect();
    Ok(answer(StatusCode::OK, &Workers { workers }))
}

async fn drain(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path(name): Path<String>,
) -> Result<Response, Response> {
    let gateway = api.gateway().map_err(Failure::response)?;
    let drained = gateway.drain_worker(&who, &name).ok_or_else(|| unknown(&name).response())?;
    Ok(answer(StatusCode::OK, &Worker::of(drained)))
}

async fn undrain(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path(name): Path<String>,
) -> Result<Response, Response> {
    let gateway = api.gateway().map_err(Failure::response)?;
    let back = gateway.undrain_worker(&who, &name).ok_or_else(|| unknown(&name).response())?;
    Ok(answer(StatusCode::OK, &Worker::of(back)))
}

fn unknown(name: &str) -> Failure {
    let message = format!("There is no worker `{}`.", short(name));
    Failure { status: StatusCode::NOT_FOUND, code: "not_found", message }
}

// === impl Worker ===

impl Worker {
    fn of(card: WorkerCard) -> Self {
        let WorkerCard { name, state, unhealthy, bases, cold, leases, batch_rows, waiting, .. } = card;
        Self {
            name,
            state: state.as_str(),
            unhealthy,
            bases,
            cold,
            leases,
            batch_rows,
            waiting,
            adapters_resident: card.adapters_resident,
            adapters_quarantined: card.adapters_quarantined,
        }
    }
}
