//! The models that the caller's tenant may use.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;

use super::Edge;
use super::generate::json;
use super::openai::{Model, ModelList};
use crate::types::{Error, Tenant};

const ROUTE: &str = "models";

pub(super) async fn list(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Response {
    let caller = match edge.authenticate(&headers) {
        Ok(caller) => caller,
        Err(error) => return edge.refuse(None, ROUTE, &error),
    };
    let models = edge.gateway.models(&caller.tenant);
    edge.told(&caller, None, encoded(&ModelList::new(&models, caller.tenant.id.as_str())))
}

pub(super) async fn one(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    let caller = match edge.authenticate(&headers) {
        Ok(caller) => caller,
        Err(error) => return edge.refuse(None, ROUTE, &error),
    };
    let response = match find(&edge, &caller.tenant, name) {
        Ok(response) => response,
        Err(error) => edge.refuse(Some(&caller), ROUTE, &error),
    };
    edge.told(&caller, None, response)
}

fn find(edge: &Edge, tenant: &Tenant, name: Result<Path<String>, PathRejection>) -> Result<Response, Error> {
    // A path that is no text names no model.
    let Path(name) = name.map_err(|_| Error::model_not_found("\u{fffd}"))?;
    let card = edge.gateway.model(tenant, &name)?;
    Ok(encoded(&Model::new(&card, tenant.id.as_str())))
}

fn encoded<T: Serialize>(value: &T) -> Response {
    json(serde_json::to_vec(value).expect("model cards are texts and numbers").into())
}
