//! The life of a generation request at this edge: authenticate, read, parse,
//! ask the gateway, and answer in one piece or as a stream.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use super::openai::{Answer, Form, Identity};
use super::parse::{self, Delivery, Parsed};
use super::sse::{Beginning, SseBody};
use super::{Api, Edge, body, error};
use crate::edge::trace;
use crate::gateway::Arrival;
use crate::telemetry::{Step, Trail};
use crate::types::{Caller, Error, GenerateRequest};

pub(super) const GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
/// Bodies from this size on are parsed where they delay nobody else's tokens.
const LARGE_BODY: usize = 256 << 10;

pub(super) async fn chat_completions(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    generate(edge, Api::Chat, request).await
}

pub(super) async fn completions(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    generate(edge, Api::Completions, request).await
}

async fn generate(edge: Arc<Edge>, api: Api, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let trail = trace::take(&mut head.extensions);
    let route = api.route().as_str();
    let caller = match edge.authenticate(&head.headers) {
        Ok(caller) => caller,
        Err(error) => return edge.refuse(None, route, &error),
    };
    let refuse = |error: &Error| edge.told(&caller, None, edge.refuse(Some(&caller), route, error));
    if let Err(error) = edge.gateway.check(&caller) {
        return refuse(&error);
    }
    let Parsed { request, delivery } = match read(&edge, api, &head, body, &trail).await {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    // From here on the gateway tells how the request ended.
    let id = edge.gateway.new_id(&caller);
    trail.hand_over();
    let arrival = Arrival { id, trail };
    let (form, model) = (Form::of(api, &request), request.model.clone());
    let generation = begin(&edge, arrival, caller.clone(), request);
    let answered = match delivery {
        Delivery::Whole => whole(generation, form).await,
        Delivery::Stream { include_usage } => stream(&edge, generation, form, include_usage).await,
    };
    let mut response = answered.unwrap_or_else(|error| error::response(&error));
    let id = HeaderValue::try_from(id.to_string()).expect("a generation's id is letters and digits");
    response.headers_mut().insert(GENERATION_ID, id);
    edge.told(&caller, Some(&model), response)
}

async fn read(edge: &Edge, api: Api, head: &http::request::Parts, body: Body, trail: &Trail) -> Result<Parsed, Error> {
    trail.enter(Step::Body);
    let bytes = body::read(&head.headers, body, &edge.config).await?;
    trail.leave();
    if bytes.len() < LARGE_BODY {
        return parse::parse(api, &bytes);
    }
    parse_aside(&edge.parsers, api, bytes).await
}

/// A parse that has begun runs to its end even where its client is gone. So
/// the permit is the parse's: clients that come and go cannot pile them up.
async fn parse_aside(parsers: &Arc<Semaphore>, api: Api, body: Bytes) -> Result<Parsed, Error> {
    let permit = parsers.clone().acquire_owned().await.expect("nobody closes the semaphore");
    let parse = move || {
        let _permit = permit;
        parse::parse(api, &body)
    };
    tokio::task::spawn_blocking(parse).await.unwrap_or_else(|_| Err(Error::internal("a body's parser panicked")))
}

fn begin(edge: &Edge, arrival: Arrival, caller: Caller, request: GenerateRequest) -> Beginning {
    let gateway = edge.gateway.clone();
    Box::pin(async move { gateway.generate(arrival, &caller, request).await })
}

async fn whole(generation: Beginning, form: Form) -> Result<Response, Error> {
    let mut generation = generation.await?;
    let mut answer = Answer::new(form);
    while let Some(event) = generation.stream.next().await {
        answer.add(event?);
    }
    Ok(json(answer.encode(&Identity::of(&generation))))
}

/// Waits for the first event, so that what fails before it has a true status;
/// but not for longer than the hold.
async fn stream(edge: &Edge, mut generation: Beginning, form: Form, include_usage: bool) -> Result<Response, Error> {
    let hold = edge.config.hold;
    let body = match tokio::time::timeout(hold, &mut generation).await {
        Ok(generation) => SseBody::running(generation?, form, include_usage, hold),
        Err(_) => SseBody::beginning(generation, form, include_usage, hold),
    };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would otherwise gather the tokens.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

pub(super) fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, error::JSON);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_body_is_parsed_in_its_turn_and_gives_it_back() {
        let body = Bytes::from_static(br#"{"model":"m","prompt":"Hi"}"#);
        let parsers = Arc::new(Semaphore::new(1));
        let busy = parsers.clone().acquire_owned().await.expect("open");
        let mut waiting = Box::pin(parse_aside(&parsers, Api::Completions, body.clone()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(busy);
        assert!(waiting.await.is_ok());
        assert!(parse_aside(&parsers, Api::Chat, body).await.is_err(), "a refusal gives it back as well");
        assert_eq!(parsers.available_permits(), 1);
    }
}
