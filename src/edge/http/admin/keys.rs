//! `/admin/v1/tenants/{tenant}/keys`: a tenant's keys. One that is made here is
//! in the answer, once, and nowhere else: what is kept is its SHA-256.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, patch, post};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};

use super::access::Who;
use super::answer::{Failure, answer};
use super::extract::Path;
use super::tenants::{nothing, unknown};
use super::{Api, body};
use crate::adapters::Urgency;
use crate::auth::NewKey;
use crate::gateway::{KeyCard, Wanted};
use crate::types::{Priority, TenantId};

/// Seconds that a key holds which another has replaced, where it is not said.
const OVERLAP: u64 = 3600;
/// The longest.
const LONGEST_OVERLAP: u64 = 30 * 24 * 3600;

#[derive(Serialize)]
struct Keys {
    keys: Vec<KeyCard>,
}

#[derive(Serialize)]
struct Made<'a> {
    /// The key itself.
    key: &'a str,
    #[serde(flatten)]
    card: KeyCard,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKeyBody {
    name: String,
    priority: Option<Urgency>,
    /// Unix seconds; left out: until it is revoked.
    expires: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default = "overlap")]
    overlap_seconds: u64,
    /// Of the new one.
    expires: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyChange {
    /// `null`: until it is revoked.
    #[serde(deserialize_with = "given")]
    expires: Option<u64>,
}

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 3] {
    [
        ("/admin/v1/tenants/{tenant}/keys", get(list).post(create)),
        ("/admin/v1/tenants/{tenant}/keys/{name}", patch(change).delete(revoke)),
        ("/admin/v1/tenants/{tenant}/keys/{name}/rotate", post(rotate)),
    ]
}

async fn list(State(api): State<Api>, Path(tenant): Path<String>) -> Result<Response, Response> {
    let gateway = api.gateway().map_err(Failure::response)?;
    let keys = gateway.keys(&TenantId::new(tenant.as_str())).await;
    Ok(answer(StatusCode::OK, &Keys { keys: keys.ok_or_else(|| unknown(&tenant).response())? }))
}

async fn create(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path(tenant): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let creating = async {
        let NewKeyBody { name, priority, expires } = body(request).await?;
        let priority = priority.map(|priority| match priority {
            Urgency::Interactive => Priority::Interactive,
            Urgency::Batch => Priority::Batch,
        });
        let tenant = TenantId::new(tenant);
        let wanted = Wanted { tenant: &tenant, name: &name, priority, expires };
        let (key, card) = api.gateway()?.create_key(&who, wanted).await?;
        Ok::<_, Failure>(made(StatusCode::CREATED, &key, card))
    };
    creating.await.map_err(Failure::response)
}

async fn rotate(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    let rotating = async {
        let Rotation { overlap_seconds, expires } = body(request).await?;
        if overlap_seconds > LONGEST_OVERLAP {
            return Err(Failure::invalid(&format!("`overlap_seconds` is at most {LONGEST_OVERLAP}.")));
        }
        let tenant = TenantId::new(tenant);
        let (key, card) = api.gateway()?.rotate_key(&who, &tenant, &name, overlap_seconds, expires).await?;
        Ok(made(StatusCode::OK, &key, card))
    };
    rotating.await.map_err(Failure::response)
}

async fn change(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    let changing = async {
        let KeyChange { expires } = body(request).await?;
        let card = api.gateway()?.expire_key(&who, &TenantId::new(tenant), &name, expires).await?;
        Ok::<_, Failure>(answer(StatusCode::OK, &card))
    };
    changing.await.map_err(Failure::response)
}

async fn revoke(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Response, Response> {
    let revoking = async {
        api.gateway()?.revoke_key(&who, &TenantId::new(tenant), &name).await?;
        Ok::<_, Failure>(nothing())
    };
    revoking.await.map_err(Failure::response)
}

fn made(status: StatusCode, key: &NewKey, card: KeyCard) -> Response {
    let mut response = answer(status, &Made { key: key.text(), card });
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn overlap() -> u64 {
    OVERLAP
}

/// A value, `null` too, but not nothing.
fn given<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(deserializer)
}
