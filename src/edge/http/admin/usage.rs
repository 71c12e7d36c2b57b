//! `GET /admin/v1/usage`: what tenants have used, by day, tenant, key and model.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;

use super::super::usage::{List, days};
use super::Api;
use super::answer::{Failure, answer};
use crate::types::TenantId;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/admin/v1/usage", get(usage))
}

async fn usage(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Response, Response> {
    summed(&api, query.as_deref().unwrap_or_default()).await.map_err(Failure::response)
}

async fn summed(api: &Api, query: &str) -> Result<Response, Failure> {
    let days = days(query).map_err(|error| Failure::invalid(error.message()))?;
    let tenant = query.split('&').find_map(|pair| pair.strip_prefix("tenant=")).filter(|tenant| !tenant.is_empty());
    let tenant = tenant.map(TenantId::new);
    let sums = api.gateway()?.usage(tenant.as_ref(), days).await?;
    Ok(answer(StatusCode::OK, &List::of(sums, days, true)))
}
