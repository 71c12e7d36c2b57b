//! The service itself: a message in, the gateway asked, events out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::convert::{self, Header};
use super::gate::MODERATE;
use super::status::{self, status};
use super::{pb, timeout};
use crate::edge::{limits, trace};
use crate::gateway::{Arrival, EventStream, Gateway, Generation};
use crate::types::{Caller, Error, GenerateRequest, GenerationId, Route};

pub(super) struct Inference {
    gateway: Arc<Gateway>,
}

/// A generation's events on their way to the client. Owns the generation:
/// when the client cancels, the transport drops this, and the work ends.
pub(super) struct Events {
    header: Header,
    id: GenerationId,
    stream: EventStream,
}

// === impl Inference ===

impl Inference {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }
}

#[tonic::async_trait]
impl pb::inference_server::Inference for Inference {
    type GenerateStream = Events;

    async fn generate(&self, request: Request<pb::GenerateRequest>) -> Result<Response<Events>, Status> {
        let caller = caller(&request)?;
        let id = self.gateway.new_id(&caller);
        let trail = trace::of(request.extensions());
        // Its message had to come in first.
        trail.arrived();
        let told = |error: &Error, model: Option<&str>| {
            let mut status = status(error, Some(id));
            status::tell(status.metadata_mut(), self.gateway.standing(&caller, model));
            status
        };
        let request = read(request).map_err(|error| {
            self.gateway.record_refusal(Some(&caller.tenant), Route::GrpcGenerate.as_str(), &error);
            told(&error, None)
        })?;
        let model = request.model.clone();
        trail.hand_over();
        let generation = self.gateway.generate(Arrival { id, trail }, &caller, request).await;
        let generation = generation.map_err(|error| told(&error, Some(&model)))?;
        let mut response = Response::new(Events::new(generation));
        response.metadata_mut().insert(status::GENERATION_ID, status::id_value(id));
        status::tell(response.metadata_mut(), self.gateway.standing(&caller, Some(&model)));
        Ok(response)
    }

    async fn moderate(&self, request: Request<pb::ModerateRequest>) -> Result<Response<pb::ModerateResponse>, Status> {
        let caller = caller(&request)?;
        let id = self.gateway.plain_id();
        let pb::ModerateRequest { input, model } = request.into_inner();
        let told = |error: &Error| {
            let mut status = status(error, Some(id));
            status::tell(status.metadata_mut(), self.gateway.standing(&caller, None));
            status
        };
        if let Err(error) = limits::moderated("input", input.len()) {
            self.gateway.record_refusal(Some(&caller.tenant), MODERATE, &error);
            return Err(told(&error));
        }
        let judged = self.gateway.moderate(id, &caller, model.as_deref(), input, MODERATE).await;
        let judged = judged.map_err(|error| told(&error))?;
        let mut response = Response::new(convert::moderation(id.to_string(), judged));
        response.metadata_mut().insert(status::GENERATION_ID, status::id_value(id));
        status::tell(response.metadata_mut(), self.gateway.standing(&caller, None));
        Ok(response)
    }

    async fn list_models(
        &self,
        request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let caller = caller(&request)?;
        let models = self.gateway.models(&caller.tenant).into_iter();
        let models = models.map(|card| pb::Model { id: card.name.to_string(), created: unix(card.created) }).collect();
        let mut response = Response::new(pb::ListModelsResponse { models });
        status::tell(response.metadata_mut(), self.gateway.standing(&caller, None));
        Ok(response)
    }
}

/// Whom the gate in front of this service found the caller to be.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let missing = || status(&Error::internal("a gRPC request passed no gate"), None);
    request.extensions().get().cloned().ok_or_else(missing)
}

fn read(request: Request<pb::GenerateRequest>) -> Result<GenerateRequest, Error> {
    let timeout = match request.metadata().get("grpc-timeout") {
        Some(value) => Some(timeout::parse(value.as_encoded_bytes())?),
        None => None,
    };
    convert::request(request.into_inner(), timeout)
}

fn unix(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

// === impl Events ===

impl Events {
    fn new(generation: Generation) -> Self {
        let Generation { id, created, model, stream } = generation;
        let header = Header { id: id.to_string(), model: model.to_string(), created: unix(created) };
        Self { header, id, stream }
    }
}

impl Stream for Events {
    type Item = Result<pb::GenerateEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let told = match std::task::ready!(this.stream.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => Err(status(&error, Some(this.id))),
                Some(Ok(event)) => match convert::event(&this.header, event) {
                    Some(told) => Ok(told),
                    None => continue,
                },
            };
            return Poll::Ready(Some(told));
        }
    }
}
