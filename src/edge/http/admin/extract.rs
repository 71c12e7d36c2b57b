//! A path's and a query's parts, refused in the form of all our errors.

use axum::extract::{FromRequestParts, Path as Segments, Query as Asked};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::answer::Failure;

/// As axum's.
pub(super) struct Path<T>(pub(super) T);

/// As axum's.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let read = Segments::<T>::from_request_parts(parts, state).await;
        // A name that cannot be one is the name of nothing.
        let refused = |message: String| Failure { status: StatusCode::NOT_FOUND, code: "not_found", message };
        read.map(|Segments(read)| Self(read)).map_err(|error| refused(sentence(&error.body_text())).response())
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let read = Asked::<T>::from_request_parts(parts, state).await;
        read.map(|Asked(read)| Self(read)).map_err(|error| Failure::invalid(&sentence(&error.body_text())).response())
    }
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}
