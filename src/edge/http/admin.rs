//! `/admin/v1`: publishing adapters, and what becomes of them.
//!
//! Operators and fine-tuners use it, on the operations listener. It asks for a
//! key; without one configured it is there on a loopback address alone, and
//! for no browser, since any page may send requests to that.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Path, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::generate::json;
use super::ops::Coming;
use crate::adapters::{
    CONFIG_FILE, ChangeError, Listed, Publish, PublishError, Record, Refused, Source, Staging, WEIGHTS_FILE,
};
use crate::auth::KeyHash;
use crate::gateway::Gateway;
use crate::types::{BaseName, TenantId};

/// Of a field that is a name, a place or a digest.
const LONGEST_FIELD: usize = 2048;
/// How long the rest of a refused upload is read.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Who may call it.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    pub key: Option<KeyHash>,
    /// It listens on an address that no other machine reaches.
    pub loopback: bool,
}

#[derive(Clone)]
struct Api {
    admin: Admin,
    gateway: Coming,
}

/// What goes wrong, in the form of all our errors.
struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorInner<'a>,
}

#[derive(Serialize)]
struct ErrorInner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBody {
    tenant: String,
    name: String,
    base: String,
    uri: String,
    digest: Option<String>,
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

/// A revision, and how it is.
#[derive(Serialize)]
struct Adapter {
    tenant: String,
    name: String,
    revision: u32,
    /// What tenants write in `model`.
    model: String,
    base: String,
    digest: String,
    rank: u32,
    bytes: u64,
    created: u64,
    /// `published`, `fetching`, `resident`, `idle`, `draining` or `retired`.
    state: &'static str,
    /// The name answers with this revision.
    serving: bool,
    pinned: bool,
    resident_on: Vec<String>,
}

#[derive(Serialize)]
struct Refusal {
    tenant: String,
    name: String,
    base: String,
    state: &'static str,
    code: String,
    reason: String,
    created: u64,
}

#[derive(Serialize)]
struct List {
    adapters: Vec<Adapter>,
    refused: Vec<Refusal>,
}

// === impl Admin ===

impl Admin {
    pub(super) fn router(self, gateway: Coming) -> Router {
        let api = Api { admin: self, gateway };
        Router::new()
            .route("/admin/v1/adapters", post(publish).get(list))
            .route("/admin/v1/adapters/{tenant}/{name}", get(of_name))
            .route("/admin/v1/adapters/{tenant}/{name}/serving", post(serving))
            .route("/admin/v1/adapters/{tenant}/{name}/{revision}", delete(remove).get(one))
            .route("/admin/v1/adapters/{tenant}/{name}/{revision}/retire", post(retire))
            // Uploads are bounded as they are written.
            .layer(DefaultBodyLimit::disable())
            .route_layer(from_fn_with_state(api.clone(), authorised))
            .with_state(api)
    }

    fn allows(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let refuse = |status, code, message: &str| Err(Failure { status, code, message: message.to_owned() });
        let Some(expected) = self.key else {
            return match (self.loopback, headers.contains_key(ORIGIN)) {
                (false, _) => refuse(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    "The admin API needs `ops.admin_key` where other machines can reach it.",
                ),
                (true, true) => {
                    refuse(StatusCode::FORBIDDEN, "forbidden", "Browsers may not use the admin API without a key.")
                }
                (true, false) => Ok(()),
            };
        };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match given.map(|key| KeyHash::of(key.trim_ascii())) {
            Some(given) if given == expected => Ok(()),
            _ => refuse(StatusCode::UNAUTHORIZED, "invalid_api_key", "The admin API asks for its key."),
        }
    }
}

async fn authorised(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.admin.allows(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.response(),
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

async fn publish(State(api): State<Api>, request: Request) -> Result<Response, Response> {
    published(&api, request).await.map_err(Failure::response)
}

async fn published(api: &Api, request: Request) -> Result<Response, Failure> {
    let gateway = api.gateway()?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Held until the artifact was read.
    let staging = gateway.catalogue().staging()?;
    let publish = if content_type.starts_with("multipart/form-data") {
        upload(request, &staging, gateway.catalogue().max_upload()).await?
    } else if content_type.starts_with("application/json") {
        let body: PublishBody = body(request).await?;
        let (tenant, base) = (TenantId::new(body.tenant), BaseName::new(body.base));
        Publish { tenant, name: body.name, base, source: Source::Uri(body.uri), digest: body.digest }
    } else {
        let message = "Send multipart/form-data with the adapter's files, or application/json with its `uri`.";
        return Err(Failure::invalid(message));
    };
    let tenant = gateway.tenant(&publish.tenant);
    let tenant = tenant.ok_or_else(|| PublishError::UnknownTenant(short(publish.tenant.as_str())))?;
    if tenant.models.contains_key(publish.name.as_str()) {
        return Err(PublishError::NameTaken(publish.name).into());
    }
    let published = gateway.catalogue().publish(publish).await?;
    let mut response = api.adapter(&published.record)?;
    *response.status_mut() = if published.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(response)
}

/// Writes an upload's files where they are staged. Their names are ours,
/// whatever the client calls them.
async fn upload(request: Request, staging: &Staging, most: u64) -> Result<Publish, Failure> {
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| Failure::invalid(&error.body_text()))?;
    let read = fields(&mut form, staging, most).await;
    if read.is_err() {
        // A client that is still sending would not see the answer.
        let rest = async {
            while let Ok(Some(mut field)) = form.next_field().await {
                while let Ok(Some(_)) = field.chunk().await {}
            }
        };
        let _ = tokio::time::timeout(DRAIN, rest).await;
    }
    read
}

/// The form's fields and files; its own text says where it goes wrong.
async fn fields(form: &mut Multipart, staging: &Staging, most: u64) -> Result<Publish, Failure> {
    let broken = |error: axum::extract::multipart::MultipartError| Failure::invalid(&error.body_text());
    let (mut tenant, mut name, mut base, mut digest) = (None, None, None, None);
    let (mut archive, mut left) = (false, most);
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        let label = field.name().unwrap_or_default().to_owned();
        let slot = match label.as_str() {
            "tenant" => &mut tenant,
            "name" => &mut name,
            "base" => &mut base,
            "digest" => &mut digest,
            CONFIG_FILE | WEIGHTS_FILE | "adapter_model.bin" | "archive" => {
                let path = staging.path().join(if label == "archive" { "upload.tar" } else { &label });
                archive |= label == "archive";
                let mut file = created(&path, &label).await?;
                while let Some(piece) = field.chunk().await.map_err(broken)? {
                    left = left.checked_sub(piece.len() as u64).ok_or_else(|| Failure::too_large(most))?;
                    file.write_all(&piece).await.map_err(|error| Failure::internal(&error))?;
                }
                file.flush().await.map_err(|error| Failure::internal(&error))?;
                continue;
            }
            other => return Err(Failure::invalid(&format!("The form has an unknown field `{}`.", short(other)))),
        };
        let mut text = Vec::new();
        while let Some(piece) = field.chunk().await.map_err(broken)? {
            text.extend_from_slice(&piece);
            if text.len() > LONGEST_FIELD {
                return Err(Failure::invalid(&format!("The field `{label}` is too long.")));
            }
        }
        let text =
            String::from_utf8(text).map_err(|_| Failure::invalid(&format!("The field `{label}` is not UTF-8.")))?;
        if slot.replace(text).is_some() {
            return Err(Failure::invalid(&format!("The field `{label}` is there twice.")));
        }
    }
    let needed = |field: Option<String>, label| {
        field.ok_or_else(|| Failure::invalid(&format!("The field `{label}` is missing.")))
    };
    let folder = staging.path().to_owned();
    Ok(Publish {
        tenant: TenantId::new(needed(tenant, "tenant")?),
        name: needed(name, "name")?,
        base: BaseName::new(needed(base, "base")?),
        source: if archive { Source::Archive(folder.join("upload.tar")) } else { Source::Folder(folder) },
        digest,
    })
}

async fn created(path: &FilePath, label: &str) -> Result<tokio::fs::File, Failure> {
    match tokio::fs::File::create_new(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::invalid(&format!("The file `{label}` is there twice.")))
        }
        created => created.map_err(|error| Failure::internal(&error)),
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

fn answer<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("these types have string keys");
    let mut response = json(body.into());
    *response.status_mut() = status;
    response
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

// === impl Adapter ===

impl Adapter {
    fn of(gateway: &Gateway, listed: Listed) -> Self {
        let Listed { record, serving, pinned, fetching, fetched } = listed;
        let resident_on = gateway.holding(&record.key);
        let state = match (record.retired.is_some(), resident_on.is_empty()) {
            (true, true) => "retired",
            (true, false) => "draining",
            (false, false) => "resident",
            (false, true) if fetching => "fetching",
            (false, true) if fetched => "idle",
            (false, true) => "published",
        };
        let Record { key, base, rank, bytes, created, .. } = record;
        Self {
            tenant: key.tenant.to_string(),
            name: key.name.to_string(),
            revision: key.revision,
            model: if serving { key.name.to_string() } else { format!("{}@{}", key.name, key.revision) },
            base: base.to_string(),
            digest: key.digest.to_string(),
            rank,
            bytes,
            created,
            state,
            serving,
            pinned,
            resident_on,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    fn of(refused: Refused) -> Self {
        let Refused { tenant, name, base, code, reason, created } = refused;
        Self { tenant, name, base, state: "refused", code, reason, created }
    }
}

// === impl Failure ===

impl Failure {
    fn invalid(message: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid_request", message: message.to_owned() }
    }

    fn too_large(most: u64) -> Self {
        let message = format!("The upload is too large: at most {most} bytes.");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: "request_too_large", message }
    }

    fn internal(error: &std::io::Error) -> Self {
        tracing::error!(%error, "an upload cannot be staged");
        let message = "The upload cannot be stored at the moment.".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "internal", message }
    }

    fn response(self) -> Response {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let body = ErrorBody { error: ErrorInner { message: &self.message, kind, code: self.code } };
        answer(self.status, &body)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        use PublishError as E;
        let status = match &error {
            E::InvalidName(_) | E::InvalidUri(_) | E::UnknownBase(_) => StatusCode::BAD_REQUEST,
            E::UnknownTenant(_) | E::ArtifactNotFound(_) => StatusCode::NOT_FOUND,
            E::NameTaken(_) => StatusCode::CONFLICT,
            E::AdapterInvalid(_) | E::UnsafeArchive(_) | E::BrokenArchive(_) | E::DigestMismatch { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            E::StoreUnavailable(_) | E::CatalogueUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            E::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, code: error.code(), message: error.to_string() }
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::NotFound(_) => StatusCode::NOT_FOUND,
            ChangeError::Retired(_) | ChangeError::NotRetired(_) | ChangeError::NothingBefore => StatusCode::CONFLICT,
            ChangeError::CatalogueUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, code: error.code(), message: error.to_string() }
    }
}
