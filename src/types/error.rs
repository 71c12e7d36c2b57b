//! What can go wrong with a request, as the product tells it.
//!
//! `ErrorKind` is closed: each edge has one table that maps every kind by
//! name, and nothing else decides a status. An `Error` carries two texts:
//! `message`, which the tenant reads and which holds nothing of other tenants
//! or of the inside, and `detail`, which only the log reads.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Limit;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    Unauthenticated,
    Forbidden,
    /// Also another tenant's model: the two cannot be told apart.
    ModelNotFound,
    InvalidRequest,
    ContextTooLong,
    /// The guard found something in the prompt.
    PromptBlocked,
    /// Nobody could judge the prompt, and the policy blocks what is not judged.
    GuardUnavailable,
    UnknownPath,
    MethodNotAllowed,
    BodyTooLarge,
    /// A limit of the tenant was hit.
    LimitExceeded(Limit),
    /// The generation has as many ratings as it may.
    TooManyRatings,
    /// Ratings find no room on the disk.
    SpoolFull,
    QueueFull,
    QueueTimeout,
    NoWorker,
    /// The adapter could not be loaded now; trying again may help.
    AdapterUnavailable,
    /// The adapter's artifact is broken; trying again will not help.
    AdapterInvalid,
    Upstream,
    Deadline,
    ShuttingDown,
    Internal,
}

impl ErrorKind {
    /// The kind's name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::ModelNotFound => "model_not_found",
            Self::InvalidRequest => "invalid_request",
            Self::ContextTooLong => "context_length_exceeded",
            Self::PromptBlocked => "content_filter",
            Self::GuardUnavailable => "guard_unavailable",
            Self::UnknownPath => "unknown_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "request_too_large",
            Self::LimitExceeded(_) => "rate_limit_exceeded",
            Self::TooManyRatings => "too_many_ratings",
            Self::SpoolFull => "spool_full",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::NoWorker => "no_worker",
            Self::AdapterUnavailable => "adapter_unavailable",
            Self::AdapterInvalid => "adapter_invalid",
            Self::Upstream => "upstream_error",
            Self::Deadline => "timeout",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }
}

/// A request's failure. Boxed, since it travels in the `Err` of every stream item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    param: Option<Cow<'static, str>>,
    code: Option<&'static str>,
    retry_after: Option<Duration>,
    detail: Option<String>,
}

// === impl Error ===

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
            detail: None,
        }))
    }

    /// A refusal of the request's field `param`.
    pub fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message).with_param(param)
    }

    /// The one answer for a model that the tenant does not have, whether or
    /// not anybody else has it.
    pub fn model_not_found(model: &str) -> Self {
        // Longer than any model's name may be.
        const SHOWN: usize = 128;
        let end = model.char_indices().nth(SHOWN);
        let shown = end.map_or(model.to_owned(), |(end, _)| format!("{}…", &model[..end]));
        Self::new(
            ErrorKind::ModelNotFound,
            format!("The model `{shown}` does not exist or you do not have access to it."),
        )
        .with_param("model")
    }

    /// Something that must not happen. The client learns only that it did.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "The server had an error while processing your request.").with_detail(detail)
    }

    /// Names the request's field that is at fault, as a path (`messages[0].role`).
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// A machine-readable code narrower than the kind's own.
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }

    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// What the log says beside the message; never sent to a client.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    pub fn code(&self) -> Option<&'static str> {
        self.0.code
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}
