//! Reading a request's body: of the right type, within the limit, in time.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::Config;
use crate::edge::refusal::quoted;
use crate::types::{Error, ErrorKind};

/// Reads nothing of a body whose type or declared length is refused, and no
/// more than the limit of any other.
pub(super) async fn read(headers: &HeaderMap, body: Body, config: &Config) -> Result<Bytes, Error> {
    check_type(headers)?;
    let limit = config.max_body_bytes;
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let wait = config.body_read_timeout;
    let Ok(read) = tokio::time::timeout(wait, collect(body, limit)).await else {
        let message = format!("The request body did not arrive within {} seconds.", wait.as_secs_f64());
        return Err(Error::new(ErrorKind::Deadline, message));
    };
    read
}

/// A missing type is taken for JSON, as `curl -d` without one means it.
fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let structured = essence.strip_prefix("application/").is_some_and(|subtype| subtype.ends_with("+json"));
    if essence == "application/json" || structured {
        return Ok(());
    }
    let message = format!("Unsupported content type '{}': this endpoint reads 'application/json'.", quoted(&text));
    Err(Error::new(ErrorKind::InvalidRequest, message))
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Error> {
    // Most bodies are one frame, which needs no copy.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        length += data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

fn broken(error: &axum::Error) -> Error {
    Error::new(ErrorKind::InvalidRequest, "The request body could not be read to its end.")
        .with_detail(error.to_string())
}

fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::BodyTooLarge, format!("The request body is too large: at most {limit} bytes are accepted."))
}
