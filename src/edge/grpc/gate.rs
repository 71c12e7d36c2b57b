//! What stands between the wire and the services: whether the request is gRPC
//! at all, who calls, and the framework's own errors put into our words.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use tonic::{Code, Status};

use super::pb::inference_server::SERVICE_NAME;
use super::pb::ratings_server;
use super::ratings;
use super::status::{ERROR_CODE, status, tell};
use super::{Config, speaks_grpc};
use crate::gateway::Gateway;
use crate::types::{Caller, Error, ErrorKind, Route};

/// The route of `Moderate` in metrics and logs.
pub(super) const MODERATE: &str = "grpc_moderate";

#[derive(Clone)]
pub(super) struct Gate {
    gateway: Arc<Gateway>,
    config: Config,
}

/// Answers what cannot be gRPC in plain HTTP, since such a caller would not
/// look for a status in the trailers.
pub(super) async fn speaks(request: Request, next: Next) -> Response {
    let web = request.headers().get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/grpc-web"));
    if !speaks_grpc(request.headers()) {
        let text = "This path speaks gRPC: the content-type must be application/grpc or application/grpc-web.\n";
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response()
    } else if !web && request.version() < Version::HTTP_2 {
        (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2; gRPC-Web does not.\n").into_response()
    } else {
        next.run(request).await
    }
}

/// Lets those through to `Inference` whose key is known, before their message
/// is read; the service finds the tenant in the request's extensions.
pub(super) async fn authenticated(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let Some(route) = route(request.uri().path()) else { return unknown_path(&gate.gateway) };
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let caller = match gate.gateway.authenticate(authorization) {
        Ok(caller) => caller,
        Err(error) => return gate.refuse(None, route, &error),
    };
    if (route == Route::GrpcGenerate.as_str() || route == MODERATE)
        && let Err(error) = gate.gateway.check(&caller)
    {
        return gate.refuse(Some(&caller), route, &error);
    }
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    match gate.unread(response.headers()) {
        Some(error) => gate.refuse(Some(&caller), route, &error),
        None => response,
    }
}

/// The one answer for a service or method that is not there.
pub(super) fn unknown_path(gateway: &Gateway) -> Response {
    let error = Error::new(ErrorKind::UnknownPath, "There is no such gRPC service or method here.");
    gateway.record_refusal(None, "grpc", &error);
    status(&error, None).into_http()
}

/// The route's name in metrics and logs.
fn route(path: &str) -> Option<&'static str> {
    if let Some(method) = path.strip_prefix('/')?.strip_prefix(ratings_server::SERVICE_NAME) {
        return match method {
            "/Rate" => Some(ratings::RATE),
            "/Stream" => Some(ratings::STREAM),
            _ => None,
        };
    }
    match path.strip_prefix('/')?.strip_prefix(SERVICE_NAME)? {
        "/Generate" => Some(Route::GrpcGenerate.as_str()),
        "/Moderate" => Some(MODERATE),
        "/ListModels" => Some("grpc_list_models"),
        _ => None,
    }
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(gateway: Arc<Gateway>, config: Config) -> Self {
        Self { gateway, config }
    }

    fn refuse(&self, caller: Option<&Caller>, route: &'static str, error: &Error) -> Response {
        self.gateway.record_refusal(caller.map(|caller| &*caller.tenant), route, error);
        let mut status = status(error, None);
        if let Some(caller) = caller {
            tell(status.metadata_mut(), self.gateway.standing(caller, None));
        }
        status.into_http()
    }

    /// The error that tonic answered with before our service saw a message.
    /// Our own are known by the code that each of them carries.
    fn unread(&self, headers: &HeaderMap) -> Option<Error> {
        if headers.contains_key(ERROR_CODE) {
            return None;
        }
        let status = Status::from_header_map(headers)?;
        let text = status.message();
        match status.code() {
            Code::Ok => None,
            // Tonic's word for a message over the limit; the rest of gRPC says it like this.
            Code::OutOfRange => {
                let most = self.config.max_message_bytes;
                let message = format!("The request is too large: a message may have {most} bytes.");
                Some(Error::new(ErrorKind::BodyTooLarge, message).with_detail(text))
            }
            Code::Unimplemented => Some(Error::invalid("grpc-encoding", "The message's compression is not supported.")),
            _ => Some(Error::new(ErrorKind::InvalidRequest, format!("The request could not be read: {text}"))),
        }
    }
}
