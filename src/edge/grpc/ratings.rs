//! Ratings: one by one, or as a stream with an acknowledgement for each.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tenantry_ratings::{Ack, Rating, Status as Recorded, Thumb};
use tonic::{Request, Response, Status, Streaming};

use super::inference::caller;
use super::pb;
use super::status::{self, status};
use crate::edge::refusal::invalid_value;
use crate::gateway::Gateway;
use crate::types::{Caller, Error};

/// Ratings of a stream that are taken before the first of them is acknowledged; they
/// share a write.
const AHEAD: usize = 64;
/// The routes in metrics and logs.
pub(super) const RATE: &str = "grpc_rate";
pub(super) const STREAM: &str = "grpc_rate_stream";

pub(super) struct Ratings {
    gateway: Arc<Gateway>,
}

// === impl Ratings ===

impl Ratings {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }
}

#[tonic::async_trait]
impl pb::ratings_server::Ratings for Ratings {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<pb::RateResponse, Status>> + Send>>;

    async fn rate(&self, request: Request<pb::RateRequest>) -> Result<Response<pb::RateResponse>, Status> {
        let caller = caller(&request)?;
        let recorded = record(&self.gateway, &caller, RATE, request.into_inner()).await;
        let mut response = Response::new(recorded?);
        status::tell(response.metadata_mut(), self.gateway.standing(&caller, None));
        Ok(response)
    }

    async fn stream(
        &self,
        request: Request<Streaming<pb::RateRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let gateway = self.gateway.clone();
        // A stream may outlive its key, so each rating asks for it anew.
        let key = request.metadata().get("authorization").map(|key| key.as_encoded_bytes().to_vec());
        let recorded = request.into_inner().map(move |rating| {
            let gateway = gateway.clone();
            let caller = gateway.authenticate(key.as_deref());
            async move {
                let caller = caller.map_err(|error| {
                    gateway.record_refusal(None, STREAM, &error);
                    status(&error, None)
                })?;
                record(&gateway, &caller, STREAM, rating?).await
            }
        });
        // In their order; none after one that is refused.
        let mut refused = false;
        let acknowledged = recorded.buffered(AHEAD).take_while(move |ack| {
            let goes_on = !refused;
            refused |= ack.is_err();
            std::future::ready(goes_on)
        });
        Ok(Response::new(Box::pin(acknowledged)))
    }
}

async fn record(
    gateway: &Gateway,
    caller: &Caller,
    route: &'static str,
    rating: pb::RateRequest,
) -> Result<pb::RateResponse, Status> {
    let recorded = match read(rating) {
        Ok(rating) => gateway.rate(caller, vec![rating], false).await,
        Err(error) => {
            gateway.rating_refused();
            Err(error)
        }
    };
    match recorded {
        Ok(mut acks) => {
            gateway.record_success(&caller.tenant, route);
            let Ack { id, status } = acks.remove(0);
            let status = match status {
                Recorded::Recorded => "recorded",
                Recorded::Duplicate => "duplicate",
            };
            Ok(pb::RateResponse { id, status: status.to_owned() })
        }
        Err(error) => {
            gateway.record_refusal(Some(&caller.tenant), route, &error);
            Err(status(&error, None))
        }
    }
}

fn read(rating: pb::RateRequest) -> Result<Rating, Error> {
    let thumb = match rating.thumb.as_deref() {
        None => None,
        Some("up") => Some(Thumb::Up),
        Some("down") => Some(Thumb::Down),
        Some(other) => return Err(invalid_value("thumb", "`up` or `down`", format_args!("{:.32}", other))),
    };
    let score = rating.score.map(|score| u8::try_from(score).unwrap_or(u8::MAX));
    Ok(Rating {
        generation_id: rating.generation_id,
        thumb,
        score,
        labels: rating.labels,
        comment: rating.comment,
        corrected_text: rating.corrected_text,
        end_user: rating.end_user,
        idempotency_key: rating.idempotency_key,
    })
}
