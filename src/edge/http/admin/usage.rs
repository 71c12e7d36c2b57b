//! `GET /admin/v1/usage`: what tenants have used, by day, tenant, key and model.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use serde::Deserialize;

use super::super::usage::{List, days};
use super::Api;
use super::answer::{Failure, answer};
use super::extract::Query;
use crate::types::TenantId;

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 1] {
    [("/admin/v1/usage", get(usage))]
}

/// The rest of the query is of the days.
#[derive(Deserialize)]
struct Whose {
    tenant: Option<String>,
}

async fn usage(
    State(api): State<Api>,
    Query(whose): Query<Whose>,
    RawQuery(query): RawQuery,
) -> Result<Response, Response> {
    summed(&api, whose, query.as_deref().unwrap_or_default()).await.map_err(Failure::response)
}

async fn summed(api: &Api, whose: Whose, query: &str) -> Result<Response, Failure> {
    let days = days(query).map_err(|error| Failure::invalid(error.message()))?;
    let tenant = whose.tenant.filter(|tenant| !tenant.is_empty()).map(TenantId::new);
    let sums = api.gateway()?.usage(tenant.as_ref(), days).await?;
    Ok(answer(StatusCode::OK, &List::of(sums, days, true)))
}
