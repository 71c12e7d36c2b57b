//! `POST /admin/v1/adapters`: a form with an adapter's files, or a place in
//! the artifact store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, FromRequest, Multipart, Request, State};
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::access::Who;
use super::answer::{Failure, short};
use super::{Api, body};
use crate::adapters::{CONFIG_FILE, Publish, PublishError, Source, Staging, WEIGHTS_FILE};
use crate::gateway::Gateway;
use crate::types::{BaseName, TenantId};

/// Of a field that is a name, a place or a digest.
const LONGEST_FIELD: usize = 2048;
/// How long the rest of a refused upload is read.
const DRAIN: Duration = Duration::from_secs(5);

/// How uploads are bounded, beside their size.
#[derive(Clone)]
pub(in crate::edge::http) struct Uploads {
    /// For uploads at one time, on this machine's disk until they are
    /// published; the next ones wait before they are read.
    pub(in crate::edge::http) places: Arc<Semaphore>,
    /// The longest that one may take.
    pub(in crate::edge::http) timeout: Duration,
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

// === impl Uploads ===

impl Default for Uploads {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(8)), timeout: Duration::from_secs(600) }
    }
}

pub(super) async fn publish(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    request: Request,
) -> Result<Response, Response> {
    published(&api, &who, request).await.map_err(Failure::response)
}

async fn published(api: &Api, who: &Who, request: Request) -> Result<Response, Failure> {
    let gateway = api.gateway()?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Both held until the artifact was read.
    let staging = gateway.catalogue().staging()?;
    let _place;
    let publish = if content_type.starts_with("multipart/form-data") {
        _place = api.uploads.places.clone().acquire_owned().await.expect("nobody closes it");
        let uploaded = upload(request, &staging, gateway.catalogue().max_upload());
        tokio::time::timeout(api.uploads.timeout, uploaded).await.unwrap_or_else(|_| Err(Failure::too_late()))?
    } else if content_type.starts_with("application/json") {
        let body: PublishBody = body(request).await?;
        let (tenant, base) = (TenantId::new(body.tenant), BaseName::new(body.base));
        Publish { tenant, name: body.name, base, source: Source::Uri(body.uri), digest: body.digest }
    } else {
        let message = "Send multipart/form-data with the adapter's files, or application/json with its `uri`.";
        return Err(Failure::invalid(message));
    };
    if let Err(error) = allowed(gateway, &publish) {
        gateway.catalogue().refused(&publish, &error).await;
        return Err(error.into());
    }
    let published = gateway.catalogue().publish(publish).await?;
    if published.new {
        api.audit_adapter(who, "adapter.published", &published.record, Value::Null)?;
    }
    let mut response = api.adapter(&published.record)?;
    *response.status_mut() = if published.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(response)
}

/// What the catalogue does not know of: the configuration's tenants and models.
fn allowed(gateway: &Gateway, publish: &Publish) -> Result<(), PublishError> {
    let tenant = gateway.tenant(&publish.tenant);
    let tenant = tenant.ok_or_else(|| PublishError::UnknownTenant(short(publish.tenant.as_str())))?;
    match tenant.models.contains_key(publish.name.as_str()) {
        true => Err(PublishError::NameTaken(publish.name.clone())),
        false => Ok(()),
    }
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

async fn created(path: &Path, label: &str) -> Result<tokio::fs::File, Failure> {
    match tokio::fs::File::create_new(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::invalid(&format!("The file `{label}` is there twice.")))
        }
        created => created.map_err(|error| Failure::internal(&error)),
    }
}
