//! A request's trail between the middleware that begins it and the handlers.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::header::USER_AGENT;
use http::{Extensions, HeaderMap};
use tracing::{Span, error_span};

use crate::telemetry::{Described, Traces, Trail, Value};
use crate::types::TraceContext;

/// A user agent is cut here.
const LONGEST_AGENT: usize = 200;

/// What a request's own span says where no generation came of it.
pub(super) struct Named {
    method: String,
    route: Option<String>,
    path: String,
    agent: Option<String>,
}

/// Begins a request's trail, which the handler finds with it, and the span that
/// log lines are written in.
pub(super) fn begin(traces: &Traces, request: &mut Request) -> (Arc<Trail>, Span, Option<Named>) {
    let trail = Arc::new(traces.begin(context(request.headers())));
    let span = trail.id().map_or_else(Span::none, |id| error_span!("request", trace_id = %id));
    let named = trail.recorded().map(|_| Named::of(request));
    request.extensions_mut().insert(trail.clone());
    (trail, span, named)
}

/// Tells the end of a request that no generation came of.
pub(super) fn end(trail: &Trail, named: Option<Named>, response: &Response) {
    let Some(named) = named.filter(|_| !trail.is_handed_over()) else { return };
    let status = response.status();
    // A server's span has failed where the server did.
    let error = status.is_server_error().then(|| status.canonical_reason().unwrap_or("server error"));
    trail.end(error, || named.described(response));
}

pub(super) fn take(extensions: &mut Extensions) -> Arc<Trail> {
    extensions.remove().unwrap_or_default()
}

pub(super) fn of(extensions: &tonic::Extensions) -> Arc<Trail> {
    extensions.get().cloned().unwrap_or_default()
}

fn context(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = headers.get("traceparent")?;
    // More than one `tracestate` would have to be joined; it is optional to pass any on.
    TraceContext::parse(parent.as_bytes(), headers.get("tracestate").map(|state| state.as_bytes()))
}

// === impl Named ===

impl Named {
    fn of(request: &Request) -> Self {
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        Self {
            method: request.method().to_string(),
            route: request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()),
            path: request.uri().path().to_owned(),
            agent: agent.map(|agent| agent.chars().take(LONGEST_AGENT).collect()),
        }
    }

    fn described(self, response: &Response) -> Described {
        let Self { method, route, path, agent } = self;
        let grpc = response.headers().get("grpc-status").and_then(|code| code.to_str().ok());
        let name = route.as_ref().map_or_else(|| method.clone(), |route| format!("{method} {route}"));
        let mut own = vec![
            ("http.request.method", Value::Text(method)),
            ("http.response.status_code", Value::Number(response.status().as_u16().into())),
            ("url.path", Value::Text(path)),
        ];
        own.extend(route.map(|route| ("http.route", Value::Text(route))));
        own.extend(agent.map(|agent| ("user_agent.original", Value::Text(agent))));
        own.extend(grpc.map(|code| ("rpc.response.status_code", Value::Text(code.to_owned()))));
        Described { name, shared: Vec::new(), own }
    }
}
