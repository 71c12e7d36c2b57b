//! Every response carries `x-request-id`, the client's own where it sent a
//! sensible one, and how long we took to begin to answer; every request has its
//! trail.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;
use tracing::Instrument;
use ulid::Ulid;

use crate::edge::trace;
use crate::telemetry::Traces;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const LONGEST: usize = 128;

pub(super) async fn attach(State(traces): State<Traces>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (trail, span, named) = trace::begin(&traces, &mut request);
    let id = request.headers().get(REQUEST_ID).filter(|id| sensible(id)).cloned().unwrap_or_else(new);
    let mut response = next.run(request).instrument(span).await;
    trace::end(&trail, named, &response);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(PROCESSING_MS, u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).into());
    response
}

/// Ids end up in logs and shells of other people.
fn sensible(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=LONGEST).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn new() -> HeaderValue {
    let mut buffer = [0; ulid::ULID_LEN];
    let id = format!("req_{}", Ulid::generate().array_to_str(&mut buffer));
    HeaderValue::try_from(id).expect("a ULID is letters and digits")
}
