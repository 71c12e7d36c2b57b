//! `/admin/v1/status`: the whole gateway at one moment, or moment by moment.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

use super::Api;
use super::answer::{Failure, answer};
use crate::gateway::Gateway;

/// Between two moments.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 2] {
    [("/admin/v1/status", get(once)), ("/admin/v1/status/stream", get(live))]
}

async fn once(State(api): State<Api>) -> Result<Response, Response> {
    let gateway = api.gateway().map_err(Failure::response)?.clone();
    let overview = tokio::task::spawn_blocking(move || gateway.overview()).await;
    let panicked = |_| Failure {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: "internal",
        message: "The gateway could not be looked at.".to_owned(),
    };
    let overview = overview.map_err(|error| panicked(error).response())?;
    Ok(answer(StatusCode::OK, &overview))
}

/// Server-sent events, one at once and then one a second, each a whole overview.
async fn live(State(api): State<Api>) -> Result<Response, Response> {
    let gateway = Arc::downgrade(api.gateway().map_err(Failure::response)?);
    let moments = stream::unfold(true, move |first| {
        let gateway = gateway.clone();
        async move {
            if !first {
                tokio::time::sleep(PAUSE).await;
            }
            // A gateway that has gone has no more to tell.
            let gateway = gateway.upgrade()?;
            let event = tokio::task::spawn_blocking(move || event(&gateway)).await.ok()?;
            Some((event, false))
        }
    });
    let mut response = Response::new(Body::from_stream(moments.map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn event(gateway: &Gateway) -> Bytes {
    let json = serde_json::to_string(&gateway.overview()).expect("texts and numbers");
    format!("data: {json}\n\n").into()
}
