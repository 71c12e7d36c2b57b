//! `/admin/v1/adapters`: what is published, and which revision a name answers with.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Who;
use super::answer::{Adapter, Failure, List, Refusal, answer, short};
use super::extract::{Path, Query};
use super::tenants::nothing;
use super::{Api, body, publish};
use crate::adapters::{ChangeError, Listed, Record};
use crate::gateway::Change;
use crate::types::TenantId;

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

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 5] {
    [
        ("/admin/v1/adapters", post(publish::publish).get(list)),
        ("/admin/v1/adapters/{tenant}/{name}", get(of_name)),
        ("/admin/v1/adapters/{tenant}/{name}/serving", post(serving)),
        ("/admin/v1/adapters/{tenant}/{name}/{revision}", delete(remove).get(one)),
        ("/admin/v1/adapters/{tenant}/{name}/{revision}/retire", post(retire)),
    ]
}

// === impl Api ===

impl Api {
    pub(super) fn adapter(&self, record: &Record) -> Result<Response, Failure> {
        Ok(answer(StatusCode::OK, &self.described(record)?))
    }

    fn described(&self, record: &Record) -> Result<Adapter, Failure> {
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
        Ok(Adapter::of(gateway, listed))
    }

    /// A revision, or the one that a name answers with, as it is now.
    fn revision(&self, tenant: &TenantId, name: &str, revision: Option<u32>) -> Result<Value, Failure> {
        let gateway = self.gateway()?;
        let all = gateway.catalogue().list(Some(tenant)).into_iter();
        let mut of_name = all.filter(|listed| *listed.record.key.name == *name);
        let found =
            of_name.find(|listed| revision.map_or(listed.serving, |wanted| listed.record.key.revision == wanted));
        Ok(json!(found.map(|listed| Adapter::of(gateway, listed))))
    }

    /// Tells a change of an adapter that `record` is left of.
    pub(super) fn audit_adapter(
        &self,
        who: &Who,
        action: &'static str,
        record: &Record,
        before: Value,
    ) -> Result<(), Failure> {
        let key = &record.key;
        let subject = format!("adapters/{}/{}/{}", key.tenant, key.name, key.revision);
        let after = json!(self.described(record)?);
        self.gateway()?.audit(Change { who: &who.0, action, subject, tenant: Some(&key.tenant), before, after });
        Ok(())
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
    Extension(who): Extension<Who>,
    Path((tenant, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    let change = async {
        let ServingBody { revision } = body(request).await?;
        let (tenant, catalogue) = (TenantId::new(tenant), api.gateway()?.catalogue());
        let before = api.revision(&tenant, &name, None)?;
        let (action, record) = match revision {
            Revision::Number(revision) => ("adapter.pinned", catalogue.pin(&tenant, &name, revision).await?),
            Revision::Word(word) if word == "latest" => ("adapter.unpinned", catalogue.latest(&tenant, &name).await?),
            Revision::Word(word) if word == "previous" => {
                ("adapter.rolled_back", catalogue.roll_back(&tenant, &name).await?)
            }
            Revision::Word(_) => {
                return Err(Failure::invalid("`revision` is a number, \"latest\" or \"previous\"."));
            }
        };
        api.audit_adapter(&who, action, &record, before)?;
        api.adapter(&record)
    };
    change.await.map_err(Failure::response)
}

async fn retire(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Path((tenant, name, revision)): Path<(String, String, u32)>,
) -> Result<Response, Response> {
    let change = async {
        let tenant = TenantId::new(tenant);
        let before = api.revision(&tenant, &name, Some(revision))?;
        let record = api.gateway()?.catalogue().retire(&tenant, &name, revision).await?;
        api.audit_adapter(&who, "adapter.retired", &record, before)?;
        api.adapter(&record)
    };
    change.await.map_err(Failure::response)
}

async fn remove(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    Path((tenant, name, revision)): Path<(String, String, u32)>,
) -> Result<Response, Response> {
    let change = async {
        let (tenant, gateway) = (TenantId::new(tenant), api.gateway()?);
        let before = api.revision(&tenant, &name, Some(revision))?;
        gateway.catalogue().delete(&tenant, &name, revision).await?;
        let subject = format!("adapters/{tenant}/{name}/{revision}");
        let (action, tenant, after) = ("adapter.deleted", Some(&tenant), Value::Null);
        gateway.audit(Change { who: &who, action, subject, tenant, before, after });
        Ok::<_, Failure>(nothing())
    };
    change.await.map_err(Failure::response)
}
