//! One request's tries before its first event. Each try is on another worker;
//! after the first event there are none, since the client has seen it.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::StreamExt;
use tracing::warn;

use super::failure;
use crate::pool::{EventSource, Lease, Pool, PoolError, Started, WorkerError};
use crate::types::{Error, Event, GenerateRequest, GenerationId, ModelRoute, TenantId};

/// A worker that has begun to answer.
pub(super) struct Attempt {
    pub lease: Lease,
    pub prompt_tokens: Option<u32>,
    pub first: Event,
    pub rest: EventSource,
}

/// What is asked of whichever worker it will be.
pub(super) struct Asked<'a> {
    pub id: GenerationId,
    pub tenant: &'a TenantId,
    pub request: &'a Arc<GenerateRequest>,
}

/// Tries up to `attempts` workers for the first event.
pub(super) async fn first_event(
    pool: &Pool,
    attempts: u32,
    route: &ModelRoute,
    asked: &Asked<'_>,
) -> Result<Attempt, Error> {
    let id = asked.id;
    let mut failed: Vec<Arc<str>> = Vec::new();
    let mut last = None;
    for _ in 0..attempts {
        let lease = match pool.acquire(route, &failed).await {
            Ok(lease) => lease,
            Err(PoolError::Worker { worker, source }) if source.another_may_help() => {
                warn!(%id, %worker, error = %source, "adapter not ready, trying another worker");
                last = Some(failure::worker(&source));
                failed.push(worker);
                continue;
            }
            // What the last worker said tells more than that there is no other.
            Err(error @ PoolError::NoWorker { .. }) => return Err(last.unwrap_or_else(|| failure::pool(&error))),
            Err(error) => return Err(failure::pool(&error)),
        };
        match begin(&lease, asked).await {
            Ok((prompt_tokens, first, rest)) => return Ok(Attempt { lease, prompt_tokens, first, rest }),
            Err(error @ WorkerError::AdapterMissing(_)) => {
                // Not the worker's fault as a worker: it may load the adapter again.
                warn!(%id, worker = %lease.worker(), %error, "the adapter was lost, loading it again");
                lease.adapter_missing();
                last = Some(failure::worker(&error));
            }
            Err(error) if error.another_may_help() => {
                warn!(%id, worker = %lease.worker(), %error, "no first event, trying another worker");
                last = Some(failure::worker(&error));
                failed.push(lease.worker().clone());
            }
            Err(error) => return Err(failure::worker(&error)),
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("a request was given no attempt")))
}

async fn begin(
    lease: &Lease,
    asked: &Asked<'_>,
) -> Result<(Option<u32>, Event, EventSource), WorkerError> {
    let Started { prompt_tokens, mut events } = lease.generate(asked.id, asked.tenant.clone(), asked.request.clone()).await?;
    match events.next().await {
        Some(Ok(first)) => Ok((prompt_tokens, first, events)),
        Some(Err(error)) => Err(error),
        None => Err(WorkerError::Failed("the stream ended before its first event".to_owned())),
    }
}
