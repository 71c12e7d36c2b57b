//! `/admin/v1/tenants`: tenants, those of the configuration and those that are
//! made here. The configuration's are read-only.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::access::Who;
use super::answer::{Failure, answer, short};
use super::extract::Path;
use super::{Api, body};
use crate::adapters::{Alias, TenantSettings, Urgency};
use crate::gateway::TenantCard;
use crate::types::TenantId;

#[derive(Serialize)]
struct Tenants {
    tenants: Vec<TenantCard>,
}

/// What is left out is as usual.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTenant {
    id: String,
    weight: Option<u32>,
    priority: Option<Urgency>,
    max_waiting: Option<usize>,
    models: Option<BTreeMap<String, Alias>>,
}

/// What is left out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantChange {
    weight: Option<u32>,
    priority: Option<Urgency>,
    max_waiting: Option<usize>,
    /// In the place of all that there are.
    models: Option<BTreeMap<String, Alias>>,
    disabled: Option<bool>,
}

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 2] {
    [
        ("/admin/v1/tenants", get(list).post(create)),
        ("/admin/v1/tenants/{tenant}", get(one).patch(change).delete(remove)),
    ]
}

async fn list(State(api): State<Api>) -> Result<Response, Response> {
    let tenants = api.gateway().map_err(Failure::response)?.tenants();
    Ok(answer(StatusCode::OK, &Tenants { tenants }))
}

async fn one(State(api): State<Api>, Path(tenant): Path<String>) -> Result<Response, Response> {
    let gateway = api.gateway().map_err(Failure::response)?;
    let card = gateway.tenant_card(&TenantId::new(tenant.as_str()));
    Ok(answer(StatusCode::OK, &card.ok_or_else(|| unknown(&tenant).response())?))
}

async fn create(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    request: Request,
) -> Result<Response, Response> {
    let creating = async {
        let NewTenant { id, weight, priority, max_waiting, models } = body(request).await?;
        let usual = TenantSettings::default();
        let settings = TenantSettings {
            weight: weight.unwrap_or(usual.weight),
            priority: priority.unwrap_or(usual.priority),
            max_waiting: max_waiting.unwrap_or(usual.max_waiting),
            models: models.unwrap_or_default(),
        };
        let card = api.gateway()?.create_tenant(&who, &TenantId::new(id), &settings).await?;
        Ok::<_, Failure>(answer(StatusCode::CREATED, &card))
    };
    creating.await.map_err(Failure::response)
}

async fn change(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path(tenant): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let changing = async {
        let wanted: TenantChange = body(request).await?;
        let change = |settings: &mut TenantSettings, disabled: &mut bool| {
            settings.weight = wanted.weight.unwrap_or(settings.weight);
            settings.priority = wanted.priority.unwrap_or(settings.priority);
            settings.max_waiting = wanted.max_waiting.unwrap_or(settings.max_waiting);
            if let Some(models) = wanted.models {
                settings.models = models;
            }
            *disabled = wanted.disabled.unwrap_or(*disabled);
        };
        let card = api.gateway()?.change_tenant(&who, &TenantId::new(tenant), change).await?;
        Ok::<_, Failure>(answer(StatusCode::OK, &card))
    };
    changing.await.map_err(Failure::response)
}

async fn remove(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path(tenant): Path<String>,
) -> Result<Response, Response> {
    let removing = async {
        api.gateway()?.delete_tenant(&who, &TenantId::new(tenant)).await?;
        Ok::<_, Failure>(nothing())
    };
    removing.await.map_err(Failure::response)
}

/// 204.
pub(super) fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(super) fn unknown(tenant: &str) -> Failure {
    let message = format!("There is no tenant `{}`.", short(tenant));
    Failure { status: StatusCode::NOT_FOUND, code: "not_found", message }
}
