//! One request's tries before its first event. Each try is on another worker;
//! after the first event there are none, since the client has seen it. Tries
//! beyond the first are paid for from a budget that all requests share.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::time::Instant;
use tracing::warn;

use super::budget::RetryBudget;
use super::failure;
use crate::pool::{EventSource, Lease, Outcome, Pool, PoolError, Started, Want, WorkerError};
use crate::telemetry::{Metrics, Step, Trail};
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
    pub route: &'a ModelRoute,
    pub request: &'a Arc<GenerateRequest>,
    /// Set while a worker has the prompt.
    pub read: &'a AtomicBool,
    pub trail: &'a Trail,
}

/// How requests are tried again.
pub(super) struct Retries {
    /// Workers that a request may try.
    attempts: u32,
    budget: Mutex<RetryBudget>,
    metrics: Arc<Metrics>,
}

// === impl Retries ===

impl Retries {
    pub(super) fn new(attempts: u32, metrics: Arc<Metrics>) -> Self {
        Self { attempts, budget: Mutex::new(RetryBudget::new(Instant::now())), metrics }
    }

    fn request(&self) {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).request(Instant::now());
    }

    fn allows(&self) -> bool {
        let allowed = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        self.metrics.retried(if allowed { "made" } else { "over_budget" });
        allowed
    }
}

/// Tries workers for the first event.
pub(super) async fn first_event(pool: &Pool, retries: &Retries, asked: &Asked<'_>) -> Result<Attempt, Error> {
    let id = asked.id;
    let want = Want { tenant: asked.tenant, route: asked.route, request: asked.request };
    let mut failed: Vec<Arc<str>> = Vec::new();
    let mut last = None;
    retries.request();
    for attempt in 0..retries.attempts {
        if attempt > 0 && !retries.allows() {
            break;
        }
        asked.trail.enter(Step::Adapter);
        let acquired = pool.acquire(want, &failed).await;
        if let Err(error) = &acquired {
            asked.trail.failed(failure::pool(error).kind().as_str());
        }
        let mut lease = match acquired {
            Ok(lease) => lease,
            Err(PoolError::Worker { worker, source }) if source.another_may_help() => {
                warn!(%id, %worker, error = %source, "adapter not ready, trying another worker");
                last = Some(failure::worker(&source));
                failed.push(worker);
                continue;
            }
            // It was taken out of service since the model's name was looked up.
            Err(PoolError::NoArtifact { .. }) => return Err(Error::model_not_found(&asked.request.model)),
            // What the last worker said tells more than that there is no other.
            Err(error @ (PoolError::NoWorker { .. } | PoolError::BackingOff { .. })) => {
                return Err(last.unwrap_or_else(|| failure::pool(&error)));
            }
            Err(error) => return Err(failure::pool(&error)),
        };
        let began = begin(&mut lease, asked).await;
        if let Err(error) = &began {
            asked.trail.failed(failure::worker(error).kind().as_str());
        }
        match began {
            Ok((prompt_tokens, first, rest)) => return Ok(Attempt { lease, prompt_tokens, first, rest }),
            Err(error @ WorkerError::AdapterMissing(_)) => {
                // Not the worker's fault as a worker: it may load the adapter again.
                warn!(%id, worker = %lease.worker(), %error, "the adapter was lost, loading it again");
                lease.adapter_missing();
                last = Some(failure::worker(&error));
            }
            Err(error) if error.another_may_help() => {
                warn!(%id, worker = %lease.worker(), %error, "no first event, trying another worker");
                lease.ended(outcome(&error));
                last = Some(failure::worker(&error));
                failed.push(lease.worker().clone());
            }
            Err(error) => return Err(failure::worker(&error)),
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("a request was given no attempt")))
}

async fn begin(lease: &mut Lease, asked: &Asked<'_>) -> Result<(Option<u32>, Event, EventSource), WorkerError> {
    let trace = asked.trail.ask(lease.worker());
    let started = lease.generate(asked.id, asked.tenant.clone(), asked.request.clone(), trace).await?;
    let Started { prompt_tokens, mut events } = started;
    asked.read.store(true, Ordering::Relaxed);
    let first = events.next().await;
    // What a worker did not answer is not the client's.
    asked.read.store(matches!(first, Some(Ok(_))), Ordering::Relaxed);
    match first {
        Some(Ok(first)) => {
            lease.began(prompt_tokens);
            Ok((prompt_tokens, first, events))
        }
        Some(Err(error)) => Err(error),
        None => Err(WorkerError::Failed("the stream ended before its first event".to_owned())),
    }
}

/// What an error says of the worker as a worker.
pub(super) fn outcome(error: &WorkerError) -> Outcome {
    match error {
        WorkerError::Unavailable(_) | WorkerError::Failed(_) => Outcome::Failed,
        WorkerError::Refused(_)
        | WorkerError::Busy
        | WorkerError::AdapterInvalid(_)
        | WorkerError::AdapterMissing(_)
        | WorkerError::AdapterMismatch(_)
        | WorkerError::AdapterUnavailable(_) => Outcome::SaysNothing,
    }
}
