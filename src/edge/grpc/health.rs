//! `grpc.health.v1`: whether the server can serve, asked once or watched.
//!
//! Each answer is looked up when it is asked for; a watch looks once a second.
//! So there is no task that keeps a copy, and a watch ends with its stream.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::{Readiness, pb};

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Health {
    readiness: Readiness,
}

type Watch = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

// === impl Health ===

impl Health {
    pub(super) fn new(readiness: Readiness) -> Self {
        Self { readiness }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Watch;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match look(&self.readiness, &request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::new(Code::NotFound, "There is no such service here.")),
            status => Ok(Response::new(answer(status))),
        }
    }

    /// The status now and whenever it changes, until the server drains: a
    /// watch has no end of its own and would hold up the shutdown.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watching = Watching {
            readiness: self.readiness.clone(),
            service: request.into_inner().service,
            told: None,
            ticks,
            ended: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(watching, Watching::next))))
    }
}

struct Watching {
    readiness: Readiness,
    service: String,
    told: Option<ServingStatus>,
    ticks: tokio::time::Interval,
    ended: bool,
}

// === impl Watching ===

impl Watching {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        while !self.ended {
            let draining = self.readiness.draining.is_cancelled();
            let status = look(&self.readiness, &self.service);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(answer(status)), self));
            }
            if draining {
                self.ended = true;
                return Some((Err(Status::new(Code::Unavailable, "The server is shutting down.")), self));
            }
            tokio::select! {
                _ = self.ticks.tick() => {}
                () = self.readiness.draining.cancelled() => {}
            }
        }
        None
    }
}

fn look(readiness: &Readiness, service: &str) -> ServingStatus {
    if !matches!(service, "" | pb::inference_server::SERVICE_NAME) {
        ServingStatus::ServiceUnknown
    } else if readiness.draining.is_cancelled() || !(readiness.not_ready)().is_empty() {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
