//! What is asked of paths and by methods that do not exist.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Method, Uri};

use super::{Edge, error};
use crate::edge::grpc;
use crate::edge::refusal::quoted;
use crate::types::{Error, ErrorKind};

/// The route's name in metrics; the path itself is the client's own text.
const ROUTE: &str = "unknown";

pub(super) async fn unknown_path(
    State(edge): State<Arc<Edge>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    // A gRPC client reads no HTTP status but 200.
    if grpc::speaks_grpc(&headers) {
        return grpc::unknown_path(&edge.gateway, &headers);
    }
    edge.refuse(None, ROUTE, &not_found(&method, &uri))
}

pub(super) async fn method_not_allowed(State(edge): State<Arc<Edge>>, method: Method, uri: Uri) -> Response {
    edge.refuse(None, ROUTE, &not_allowed(&method, &uri))
}

pub(super) async fn ops_unknown_path(method: Method, uri: Uri) -> Response {
    error::response(&not_found(&method, &uri))
}

pub(super) async fn ops_method_not_allowed(method: Method, uri: Uri) -> Response {
    error::response(&not_allowed(&method, &uri))
}

fn not_found(method: &Method, uri: &Uri) -> Error {
    let (method, path) = (quoted(method.as_str()), quoted(uri.path()));
    let message = format!("Unknown request URL: {method} {path}. Please check the URL for typos.");
    Error::new(ErrorKind::UnknownPath, message)
}

fn not_allowed(method: &Method, uri: &Uri) -> Error {
    let (method, path) = (quoted(method.as_str()), quoted(uri.path()));
    Error::new(ErrorKind::MethodNotAllowed, format!("Not allowed to {method} on {path}."))
}
