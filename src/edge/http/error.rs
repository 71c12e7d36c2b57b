//! The table of kinds to HTTP: status, OpenAI `type` and `code`. No other
//! place decides a status.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::edge::refusal::whole_seconds;
use crate::types::{Error, ErrorKind};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

struct Row {
    status: StatusCode,
    /// OpenAI's `type`.
    class: &'static str,
    code: Option<&'static str>,
    /// What the stock clients do with the status unless they are told.
    retry: Retry,
}

enum Retry {
    /// As the client thinks best: it tries 408, 409, 429 and 5xx again.
    AsUsual,
    /// The same request would end the same way, at the same cost.
    Useless,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

fn row(kind: ErrorKind) -> Row {
    const INVALID: &str = "invalid_request_error";
    const OVERLOADED: &str = "overloaded_error";
    const SERVER: &str = "server_error";
    let (status, class, code) = match kind {
        ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key")),
        ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "permission_error", Some("forbidden")),
        ErrorKind::ModelNotFound => (StatusCode::NOT_FOUND, INVALID, Some("model_not_found")),
        ErrorKind::InvalidRequest => (StatusCode::BAD_REQUEST, INVALID, None),
        ErrorKind::ContextTooLong => (StatusCode::BAD_REQUEST, INVALID, Some("context_length_exceeded")),
        ErrorKind::PromptBlocked => (StatusCode::BAD_REQUEST, INVALID, Some("content_filter")),
        ErrorKind::GuardUnavailable => (StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("guard_unavailable")),
        ErrorKind::UnknownPath => (StatusCode::NOT_FOUND, INVALID, Some("unknown_url")),
        ErrorKind::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_allowed")),
        ErrorKind::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("request_too_large")),
        ErrorKind::LimitExceeded(limit) if limit.is_budget() => {
            (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", Some("insufficient_quota"))
        }
        ErrorKind::LimitExceeded(limit) => (StatusCode::TOO_MANY_REQUESTS, limit.unit(), Some("rate_limit_exceeded")),
        ErrorKind::TooManyRatings => (StatusCode::CONFLICT, INVALID, Some("too_many_ratings")),
        ErrorKind::SpoolFull => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, Some("spool_full")),
        ErrorKind::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, Some("queue_full")),
        ErrorKind::QueueTimeout => (StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, Some("queue_timeout")),
        ErrorKind::NoWorker => (StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("no_worker")),
        ErrorKind::AdapterUnavailable => (StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("adapter_unavailable")),
        ErrorKind::AdapterInvalid => (StatusCode::UNPROCESSABLE_ENTITY, SERVER, Some("adapter_invalid")),
        ErrorKind::Upstream => (StatusCode::BAD_GATEWAY, SERVER, Some("upstream_error")),
        ErrorKind::Deadline => (StatusCode::GATEWAY_TIMEOUT, SERVER, Some("timeout")),
        ErrorKind::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("shutting_down")),
        ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("internal")),
    };
    let retry = match kind {
        ErrorKind::Deadline | ErrorKind::AdapterInvalid | ErrorKind::PromptBlocked | ErrorKind::TooManyRatings => {
            Retry::Useless
        }
        ErrorKind::LimitExceeded(limit) if limit.is_budget() => Retry::Useless,
        _ => Retry::AsUsual,
    };
    Row { status, class, code, retry }
}

pub(super) fn response(error: &Error) -> Response {
    let Row { status, retry, .. } = row(error.kind());
    let mut response = Response::new(Body::from(body(error)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = error.retry_after() {
        headers.insert(RETRY_AFTER, whole_seconds(after).into());
        headers.insert(RETRY_AFTER_MS, u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
    }
    if matches!(retry, Retry::Useless) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// The error as JSON: a response's body, or what a stream's last frame says.
pub(super) fn body(error: &Error) -> Bytes {
    let Row { class, code, .. } = row(error.kind());
    let object =
        ErrorObject { message: error.message(), r#type: class, param: error.param(), code: error.code().or(code) };
    serde_json::to_vec(&ErrorBody { error: object }).expect("an error's body is texts").into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::Limit;

    const EVERY_KIND: [ErrorKind; 25] = [
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::ModelNotFound,
        ErrorKind::InvalidRequest,
        ErrorKind::ContextTooLong,
        ErrorKind::PromptBlocked,
        ErrorKind::GuardUnavailable,
        ErrorKind::UnknownPath,
        ErrorKind::MethodNotAllowed,
        ErrorKind::BodyTooLarge,
        ErrorKind::LimitExceeded(Limit::Concurrency),
        ErrorKind::LimitExceeded(Limit::RequestsPerMinute),
        ErrorKind::LimitExceeded(Limit::OutputTokensPerMinute),
        ErrorKind::LimitExceeded(Limit::TokensPerDay),
        ErrorKind::TooManyRatings,
        ErrorKind::SpoolFull,
        ErrorKind::QueueFull,
        ErrorKind::QueueTimeout,
        ErrorKind::NoWorker,
        ErrorKind::AdapterUnavailable,
        ErrorKind::AdapterInvalid,
        ErrorKind::Upstream,
        ErrorKind::Deadline,
        ErrorKind::ShuttingDown,
        ErrorKind::Internal,
    ];

    #[test]
    fn the_whole_table_is_the_golden_file() {
        let line = |kind: ErrorKind| {
            let error = Error::new(kind, "text");
            let retry = if response(&error).headers().contains_key(SHOULD_RETRY) { "useless" } else { "as usual" };
            format!(
                "{} | {} | retry {retry} | {}\n",
                kind.as_str(),
                response(&error).status().as_u16(),
                String::from_utf8_lossy(&body(&error))
            )
        };
        let table: String = EVERY_KIND.into_iter().map(line).collect();
        assert_eq!(table, include_str!("tests/error_table.golden"));
    }

    #[test]
    fn an_error_says_which_field_is_at_fault_and_its_own_code() {
        let error = Error::invalid("messages[0].role", "No \"such\" role.").with_code("narrow").with_detail("secret");
        assert_eq!(
            body(&error),
            r#"{"error":{"message":"No \"such\" role.","type":"invalid_request_error","param":"messages[0].role","code":"narrow"}}"#
        );
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_in_milliseconds() {
        for (after, seconds, millis) in
            [(1, "1", "1"), (1000, "1", "1000"), (1001, "2", "1001"), (30_000, "30", "30000")]
        {
            let error = Error::new(ErrorKind::QueueFull, "full").with_retry_after(Duration::from_millis(after));
            let response = response(&error);
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
            assert_eq!(response.headers()[RETRY_AFTER_MS], millis);
        }
    }
}
