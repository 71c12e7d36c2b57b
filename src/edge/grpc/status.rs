//! The gRPC side of every error: kind to code, and what travels beside it.

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::edge::refusal::{go_duration, whole_seconds};
use crate::gateway::{Allowance, Standing};
use crate::types::{Error, ErrorKind, GenerationId};

pub(super) const GENERATION_ID: &str = "x-generation-id";
pub(super) const ERROR_CODE: &str = "tenantry-error-code";
/// Which limit was hit.
const LIMIT: &str = "tenantry-limit";
const SHOULD_RETRY: &str = "x-should-retry";
const ERROR_PARAM: &str = "tenantry-error-param";
const RETRY_AFTER: &str = "retry-after";

/// The longest text sent. Statuses travel in headers, of which clients take
/// 8 KiB by default, and a message may quote what a client wrote.
const MESSAGE_BYTES: usize = 1024;

/// The table: what each kind is in gRPC.
pub(super) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::ModelNotFound => Code::NotFound,
        ErrorKind::InvalidRequest | ErrorKind::ContextTooLong => Code::InvalidArgument,
        ErrorKind::UnknownPath | ErrorKind::MethodNotAllowed => Code::Unimplemented,
        ErrorKind::BodyTooLarge | ErrorKind::LimitExceeded(_) => Code::ResourceExhausted,
        ErrorKind::AdapterInvalid | ErrorKind::PromptBlocked | ErrorKind::TooManyRatings => Code::FailedPrecondition,
        ErrorKind::Deadline => Code::DeadlineExceeded,
        ErrorKind::SpoolFull
        | ErrorKind::QueueFull
        | ErrorKind::QueueTimeout
        | ErrorKind::NoWorker
        | ErrorKind::AdapterUnavailable
        | ErrorKind::GuardUnavailable
        | ErrorKind::Upstream
        | ErrorKind::ShuttingDown => Code::Unavailable,
        ErrorKind::Internal => Code::Internal,
    }
}

/// What the client is told: the tenant's text and the metadata that programs
/// read. The error's detail stays with the log.
pub(super) fn status(error: &Error, generation: Option<GenerationId>) -> Status {
    let mut metadata = MetadataMap::new();
    let mut code_told = error.code().unwrap_or(error.kind().as_str());
    if let ErrorKind::LimitExceeded(limit) = error.kind() {
        metadata.insert(LIMIT, MetadataValue::from_static(limit.as_str()));
        if limit.is_budget() {
            code_told = "insufficient_quota";
            metadata.insert(SHOULD_RETRY, MetadataValue::from_static("false"));
        }
    }
    metadata.insert(ERROR_CODE, MetadataValue::from_static(code_told));
    if let Some(id) = generation {
        metadata.insert(GENERATION_ID, id_value(id));
    }
    // A field's path may quote a client's own key, which need not be ASCII.
    let param = error.param().filter(|param| param.is_ascii());
    if let Some(param) = param.and_then(|param| MetadataValue::try_from(shortened(param)).ok()) {
        metadata.insert(ERROR_PARAM, param);
    }
    if let Some(after) = error.retry_after() {
        metadata.insert(RETRY_AFTER, MetadataValue::from(whole_seconds(after)));
    }
    Status::with_metadata(code(error.kind()), shortened(error.message()), metadata)
}

/// How the caller stands with its limits, in the names of the HTTP edge.
pub(super) fn tell(metadata: &mut MetadataMap, standing: Standing) {
    let kinds = [
        (
            standing.requests,
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
        ),
        (standing.tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
    ];
    for (allowance, [of_limit, of_remaining, of_reset]) in kinds {
        let Some(Allowance { limit, remaining, reset }) = allowance else { continue };
        metadata.insert(of_limit, limit.into());
        metadata.insert(of_remaining, remaining.into());
        if let Ok(reset) = MetadataValue::try_from(go_duration(reset)) {
            metadata.insert(of_reset, reset);
        }
    }
}

pub(super) fn id_value(id: GenerationId) -> MetadataValue<Ascii> {
    MetadataValue::try_from(id.to_string()).expect("a generation's id is ASCII")
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::Limit;

    /// The public contract, one line a kind: code, then `tenantry-error-code`.
    const TABLE: [(ErrorKind, Code, &str); 20] = [
        (ErrorKind::Unauthenticated, Code::Unauthenticated, "unauthenticated"),
        (ErrorKind::Forbidden, Code::PermissionDenied, "forbidden"),
        (ErrorKind::ModelNotFound, Code::NotFound, "model_not_found"),
        (ErrorKind::InvalidRequest, Code::InvalidArgument, "invalid_request"),
        (ErrorKind::ContextTooLong, Code::InvalidArgument, "context_length_exceeded"),
        (ErrorKind::UnknownPath, Code::Unimplemented, "unknown_path"),
        (ErrorKind::MethodNotAllowed, Code::Unimplemented, "method_not_allowed"),
        (ErrorKind::BodyTooLarge, Code::ResourceExhausted, "request_too_large"),
        (ErrorKind::LimitExceeded(Limit::Concurrency), Code::ResourceExhausted, "rate_limit_exceeded"),
        (ErrorKind::TooManyRatings, Code::FailedPrecondition, "too_many_ratings"),
        (ErrorKind::SpoolFull, Code::Unavailable, "spool_full"),
        (ErrorKind::QueueFull, Code::Unavailable, "queue_full"),
        (ErrorKind::QueueTimeout, Code::Unavailable, "queue_timeout"),
        (ErrorKind::NoWorker, Code::Unavailable, "no_worker"),
        (ErrorKind::AdapterUnavailable, Code::Unavailable, "adapter_unavailable"),
        (ErrorKind::AdapterInvalid, Code::FailedPrecondition, "adapter_invalid"),
        (ErrorKind::Upstream, Code::Unavailable, "upstream_error"),
        (ErrorKind::Deadline, Code::DeadlineExceeded, "timeout"),
        (ErrorKind::ShuttingDown, Code::Unavailable, "shutting_down"),
        (ErrorKind::Internal, Code::Internal, "internal"),
    ];

    #[test]
    fn every_kind_has_its_code_and_tells_the_tenants_text_alone() {
        for (kind, code, name) in TABLE {
            let error = Error::new(kind, "what the tenant reads").with_detail("worker-7 at 10.0.0.3");
            let status = status(&error, None);
            assert_eq!(status.code(), code, "{kind:?}");
            assert_eq!(status.message(), "what the tenant reads");
            let headers = status.into_http::<()>().into_parts().0.headers;
            assert_eq!(headers[ERROR_CODE], name, "{kind:?}");
            assert!(headers.values().all(|value| !value.as_bytes().windows(8).any(|text| text == b"worker-7")));
            let limit = usize::from(matches!(kind, ErrorKind::LimitExceeded(_)));
            assert_eq!(
                headers.len(),
                4 + limit,
                "content type, status, message, code and limit, nothing else: {headers:?}"
            );
        }
    }

    #[test]
    fn a_budget_that_is_used_up_is_not_a_rate() {
        let status = status(&Error::new(ErrorKind::LimitExceeded(Limit::TokensPerMonth), "text"), None);
        let read = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        assert_eq!((read(ERROR_CODE), read(LIMIT)), (Some("insufficient_quota"), Some("tokens_per_month")));
        assert_eq!(read(SHOULD_RETRY), Some("false"));
    }

    #[test]
    fn metadata_names_generation_param_narrower_code_and_delay() {
        let id = GenerationId::new(ulid::Ulid::from_parts(1, 2));
        let error = Error::invalid("messages[0].role", "no such role")
            .with_code("narrower")
            .with_retry_after(Duration::from_millis(1500));
        let status = status(&error, Some(id));
        let read = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        assert_eq!(read(GENERATION_ID), Some(&*id.to_string()));
        assert_eq!(read(ERROR_CODE), Some("narrower"));
        assert_eq!(read(ERROR_PARAM), Some("messages[0].role"));
        assert_eq!(read(RETRY_AFTER), Some("2"));
    }

    #[test]
    fn what_a_client_wrote_cannot_outgrow_the_headers() {
        let error = Error::model_not_found(&"é".repeat(100_000)).with_param("ключ");
        let status = status(&error, None);
        assert!(status.message().len() <= MESSAGE_BYTES);
        assert!(status.message().starts_with("The model `éé"));
        let headers = status.into_http::<()>().into_parts().0.headers;
        assert!(headers.values().all(|value| value.len() <= 3 * MESSAGE_BYTES));
        assert!(!headers.contains_key(ERROR_PARAM));
    }
}
