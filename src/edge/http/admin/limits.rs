//! `/admin/v1/tenants/{tenant}/limits`: a tenant's limits, those of its keys and
//! of its models, and setting them while requests run.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, put};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::access::Who;
use super::answer::{Failure, answer};
use super::extract::Path;
use super::tenants::unknown;
use super::{Api, body};
use crate::gateway::{LimitsCard, LimitsOf};
use crate::types::{Limit, Limits, TenantId};

#[derive(Serialize)]
struct Tenant {
    tenant: String,
    limits: Vec<Card>,
}

#[derive(Serialize)]
struct Card {
    /// `tenant`, `key` or `model`.
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What is not limited is left out.
    limits: Value,
    remaining: Map<String, Value>,
    /// By this API, in the place of the configuration's.
    set: bool,
}

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 3] {
    [
        ("/admin/v1/tenants/{tenant}/limits", get(list).put(of_tenant).delete(reset_tenant)),
        ("/admin/v1/tenants/{tenant}/keys/{name}/limits", put(of_key).delete(reset_key)),
        ("/admin/v1/tenants/{tenant}/models/{name}/limits", put(of_model).delete(reset_model)),
    ]
}

async fn list(State(api): State<Api>, Path(tenant): Path<String>) -> Result<Response, Response> {
    told(&api, &tenant).map_err(Failure::response)
}

fn told(api: &Api, tenant: &str) -> Result<Response, Failure> {
    let cards = api.gateway()?.limits(&TenantId::new(tenant));
    let cards = cards.ok_or_else(|| unknown(tenant))?;
    let limits = cards.into_iter().map(Card::of).collect();
    Ok(answer(StatusCode::OK, &Tenant { tenant: tenant.to_owned(), limits }))
}

async fn of_tenant(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path(tenant): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    set(&api, &who, &tenant, LimitsOf::Tenant, request).await.map_err(Failure::response)
}

async fn of_key(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    set(&api, &who, &tenant, LimitsOf::Key(name.into()), request).await.map_err(Failure::response)
}

async fn of_model(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    set(&api, &who, &tenant, LimitsOf::Model(name.into()), request).await.map_err(Failure::response)
}

async fn set(api: &Api, who: &Who, tenant: &str, of: LimitsOf, request: Request) -> Result<Response, Failure> {
    let limits: Limits = body(request).await?;
    let zero = Limit::ALL.into_iter().find(|limit| limits.of(*limit) == Some(0)).map(Limit::as_str);
    let sizes = [("max_prompt_tokens", limits.max_prompt_tokens), ("max_output_tokens", limits.max_output_tokens)];
    let zero = zero.or_else(|| sizes.into_iter().find(|(_, most)| *most == Some(0)).map(|(name, _)| name));
    if let Some(name) = zero {
        return Err(Failure::invalid(&format!("`{name}` is at least 1; leave it out for no limit.")));
    }
    let mut set = Limit::ALL.into_iter().filter_map(|limit| Some((limit.as_str(), limits.of(limit)?)));
    let sizes = sizes.into_iter().filter_map(|(name, most)| Some((name, most?)));
    if let Some((name, _)) = set.by_ref().chain(sizes).find(|(_, most)| *most > Limits::MOST) {
        return Err(Failure::invalid(&format!("`{name}` is at most {}.", Limits::MOST)));
    }
    api.gateway()?.set_limits(&who.0, &TenantId::new(tenant), of, Some(limits)).await?;
    told(api, tenant)
}

async fn reset_tenant(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path(tenant): Path<String>,
) -> Result<Response, Response> {
    reset(&api, &who, &tenant, LimitsOf::Tenant).await.map_err(Failure::response)
}

async fn reset_key(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Response, Response> {
    reset(&api, &who, &tenant, LimitsOf::Key(name.into())).await.map_err(Failure::response)
}

async fn reset_model(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Response, Response> {
    reset(&api, &who, &tenant, LimitsOf::Model(name.into())).await.map_err(Failure::response)
}

async fn reset(api: &Api, who: &Who, tenant: &str, of: LimitsOf) -> Result<Response, Failure> {
    api.gateway()?.set_limits(&who.0, &TenantId::new(tenant), of, None).await?;
    told(api, tenant)
}

// === impl Card ===

impl Card {
    fn of(card: LimitsCard) -> Self {
        let LimitsCard { of, limits, left, set } = card;
        let (scope, name) = match of {
            LimitsOf::Tenant => ("tenant", None),
            LimitsOf::Key(name) => ("key", Some(name.to_string())),
            LimitsOf::Model(name) => ("model", Some(name.to_string())),
        };
        let mut limits = json!(limits);
        if let Value::Object(limits) = &mut limits {
            limits.retain(|_, most| !most.is_null());
        }
        let remaining = left.into_iter().map(|(name, left)| (name.to_owned(), left.into())).collect();
        Self { scope, name, limits, remaining, set }
    }
}
