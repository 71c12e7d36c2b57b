//! `/admin/v1/policies`: the guard's policies that the configuration names, and
//! giving them to tenants in the place of those that it gives.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, put};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::access::Who;
use super::answer::{Failure, answer, short};
use super::extract::Path;
use super::tenants::unknown;
use super::{Api, body};
use crate::gateway::{GivenPolicy, PolicyCard};
use crate::types::TenantId;

#[derive(Serialize)]
struct Policies {
    policies: Vec<PolicyCard>,
}

/// What a tenant was given; all else is as the configuration says.
#[derive(Serialize)]
struct OfTenant {
    tenant: String,
    given: Vec<GivenPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    policy: String,
}

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 4] {
    [
        ("/admin/v1/policies", get(list)),
        ("/admin/v1/policies/{policy}", get(one)),
        ("/admin/v1/tenants/{tenant}/policy", get(of_tenant).put(give).delete(take)),
        ("/admin/v1/tenants/{tenant}/models/{name}/policy", put(give_model).delete(take_model)),
    ]
}

async fn list(State(api): State<Api>) -> Result<Response, Response> {
    let policies = api.gateway().map_err(Failure::response)?.policies();
    Ok(answer(StatusCode::OK, &Policies { policies }))
}

async fn one(State(api): State<Api>, Path(policy): Path<String>) -> Result<Response, Response> {
    let found = api.gateway().map_err(Failure::response)?.policies().into_iter().find(|card| card.name == policy);
    let message = || format!("The configuration has no policy `{}`.", short(&policy));
    let missing = || Failure { status: StatusCode::NOT_FOUND, code: "not_found", message: message() }.response();
    Ok(answer(StatusCode::OK, &found.ok_or_else(missing)?))
}

async fn of_tenant(State(api): State<Api>, Path(tenant): Path<String>) -> Result<Response, Response> {
    told(&api, &tenant).map_err(Failure::response)
}

async fn give(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path(tenant): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let giving = async { set(&api, &who, &tenant, None, Some(body::<Given>(request).await?.policy)).await };
    giving.await.map_err(Failure::response)
}

async fn take(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path(tenant): Path<String>,
) -> Result<Response, Response> {
    set(&api, &who, &tenant, None, None).await.map_err(Failure::response)
}

async fn give_model(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    let giving = async { set(&api, &who, &tenant, Some(&name), Some(body::<Given>(request).await?.policy)).await };
    giving.await.map_err(Failure::response)
}

async fn take_model(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Response, Response> {
    set(&api, &who, &tenant, Some(&name), None).await.map_err(Failure::response)
}

async fn set(
    api: &Api,
    who: &Who,
    tenant: &str,
    model: Option<&str>,
    policy: Option<String>,
) -> Result<Response, Failure> {
    api.gateway()?.set_policy(&who.0, &TenantId::new(tenant), model, policy.as_deref()).await?;
    told(api, tenant)
}

fn told(api: &Api, tenant: &str) -> Result<Response, Failure> {
    let given = api.gateway()?.given_policies(&TenantId::new(tenant)).ok_or_else(|| unknown(tenant))?;
    Ok(answer(StatusCode::OK, &OfTenant { tenant: tenant.to_owned(), given }))
}
