//! `/admin/v1`: publishing adapters, and what becomes of them; workers, limits
//! and usage.
//!
//! Operators and fine-tuners use it, on the operations listener ([`access`]).

mod access;
mod answer;
mod limits;
mod publish;
mod status;
mod usage;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde::Deserialize;

use super::ops::Coming;
use crate::adapters::{ChangeError, Listed, Record};
use crate::gateway::Gateway;
use crate::types::TenantId;

pub use access::Admin;
pub(super) use publish::Uploads;

use answer::{Adapter, Failure, List, Refusal, answer, short};

#[derive(Clone)]
struct Api {
    admin: Admin,
    gateway: Coming,
    uploads: Uploads,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServingBody {
    /// A number, or `"latest"`, or `"previous"`.
    revision: Revision,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Revision {
    Number(u32),
    Word(String),
}

#[derive(Deserialize)]
struct Filter {
    tenant: Option<String>,
    name: Option<String>,
}

// === impl Admin ===

impl Admin {
    pub(super) fn router(self, gateway: Coming, uploads: Uploads) -> Router {
        let api = Api { admin: self, gateway, uploads };
        Router::new()
            .route("/admin/v1/adapters", post(publish::publish).get(list))
            .route("/admin/v1/adapters/{tenant}/{name}", get(of_name))
            .route("/admin/v1/adapters/{tenant}/{name}/serving", post(serving))
            .route("/admin/v1/adapters/{tenant}/{name}/{revision}", delete(remove).get(one))
            .route("/admin/v1/adapters/{tenant}/{name}/{revision}/retire", post(retire))
            .merge(workers::routes())
            .merge(limits::routes())
            .merge(usage::routes())
            .merge(status::routes())
            // Uploads are bounded as they are written.
            .layer(DefaultBodyLimit::disable())
            .route_layer(from_fn_with_state(api.clone(), access::authorised))
            .with_state(api)
    }
}

// === impl Api ===

impl Api {
    fn gateway(&self) -> Result<&Arc<Gateway>, Failure> {
        self.gateway.get().ok_or_else(|| Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "starting",
            message: "The server is starting.".to_owned(),
        })
    }

    fn adapter(&self, record: &Record) -> Result<Response, Failure> {
        let gateway = self.gateway()?;
        let all = gateway.catalogue().list(Some(&record.key.tenant));
        let listed = all.into_iter().find(|listed| listed.record.key == record.key);
        // What another gateway has just changed is told as it was.
        let listed = listed.unwrap_or_else(|| Listed {
            record: record.clone(),
            serving: false,
            pinned: false,
            fetching: false,
            fetched: false,
        });
        Ok(answer(StatusCode::OK, &Adapter::of(gateway, listed)))
    }
}

async fn list(State(api): State<Api>, Query(filter): Query<Filter>) -> Result<Response, Response> {
    listed(&api, filter).await.map_err(Failure::response)
}

async fn of_name(State(api): State<Api>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, Response> {
    listed(&api, Filter { tenant: Some(tenant), name: Some(name) }).await.map_err(Failure::response)
}

async fn listed(api: &Api, filter: Filter) -> Result<Response, Failure> {
    let gateway = api.gateway()?;
    let tenant = filter.tenant.map(TenantId::new);
    let named = |name: &str| filter.name.as_deref().is_none_or(|wanted| wanted == name);
    let adapters = gateway.catalogue().list(tenant.as_ref()).into_iter();
    let adapters = adapters.filter(|listed| named(&listed.record.key.name));
    // Those who ask while the database is away learn what there is all the same.
    let refusals = gateway.catalogue().refusals(tenant.as_ref()).await.unwrap_or_default().into_iter();
    let list = List {
        adapters: adapters.map(|listed| Adapter::of(gateway, listed)).collect(),
        refused: refusals.filter(|refused| named(&refused.name)).map(Refusal::of).collect(),
    };
    Ok(answer(StatusCode::OK, &list))
}

async fn one(
    State(api): State<Api>,
    Path((tenant, name, revision)): Path<(String, String, u32)>,
) -> Result<Response, Response> {
    let found = || {
        let tenant = TenantId::new(tenant);
        let all = api.gateway()?.catalogue().list(Some(&tenant));
        let listed = all.into_iter().find(|it| *it.record.key.name == *name && it.record.key.revision == revision);
        let listed = listed.ok_or_else(|| ChangeError::NotFound(format!("{}@{revision}", short(&name))))?;
        Ok::<_, Failure>(answer(StatusCode::OK, &Adapter::of(api.gateway()?, listed)))
    };
    found().map_err(Failure::response)
}

async fn serving(
    State(api): State<Api>,
    Path((tenant, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    let change = async {
        let ServingBody { revision } = body(request).await?;
        let (tenant, catalogue) = (TenantId::new(tenant), api.gateway()?.catalogue());
        let record = match revision {
            Revision::Number(revision) => catalogue.pin(&tenant, &name, revision).await?,
            Revision::Word(word) if word == "latest" => catalogue.latest(&tenant, &name).await?,
            Revision::Word(word) if word == "previous" => catalogue.roll_back(&tenant, &name).await?,
            Revision::Word(_) => {
                return Err(Failure::invalid("`revision` is a number, \"latest\" or \"previous\"."));
            }
        };
        api.adapter(&record)
    };
    change.await.map_err(Failure::response)
}

async fn retire(
    State(api): State<Api>,
    Path((tenant, name, revision)): Path<(String, String, u32)>,
) -> Result<Response, Response> {
    let change = async {
        let record = api.gateway()?.catalogue().retire(&TenantId::new(tenant), &name, revision).await?;
        api.adapter(&record)
    };
    change.await.map_err(Failure::response)
}

async fn remove(
    State(api): State<Api>,
    Path((tenant, name, revision)): Path<(String, String, u32)>,
) -> Result<Response, Response> {
    let change = async {
        api.gateway()?.catalogue().delete(&TenantId::new(tenant), &name, revision).await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok::<_, Failure>(response)
    };
    change.await.map_err(Failure::response)
}

async fn body<T: for<'a> Deserialize<'a>>(request: Request) -> Result<T, Failure> {
    let bytes = axum::body::to_bytes(request.into_body(), 64 << 10).await;
    let bytes = bytes.map_err(|error| Failure::invalid(&error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::invalid(&format!("The body is not as expected: {error}.")))
}
