//! `/admin/v1/log`: what of the log is written.

use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::access::Who;
use super::answer::{Failure, answer};
use super::{Api, body};
use crate::gateway::Change;
use crate::telemetry::{LogConfig, NoLog};

/// The longest that a filter is set for.
const LONGEST: u64 = 7 * 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// A level, or directives such as `info,tenantry::pool=debug`.
    filter: String,
    /// Seconds; left out: until it is set back, or the process ends.
    lasts_seconds: Option<u64>,
}

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 1] {
    [("/admin/v1/log", get(now).put(set).delete(reset))]
}

async fn now(State(api): State<Api>) -> Result<Response, Response> {
    told(&api).map_err(Failure::response)
}

async fn set(
    State(api): State<Api>,
    Extension(Who(who)): Extension<Who>,
    request: Request,
) -> Result<Response, Response> {
    let setting = async {
        let Wanted { filter, lasts_seconds } = body(request).await?;
        if filter.trim().is_empty() {
            return Err(Failure::invalid("`filter` is a level, or directives such as `info,tenantry::pool=debug`."));
        }
        let checked = LogConfig { filter: filter.clone(), ..LogConfig::default() }.check();
        checked.map_err(|error| Failure::invalid(&format!("`filter`: {error}.")))?;
        if lasts_seconds.is_some_and(|seconds| !(1..=LONGEST).contains(&seconds)) {
            return Err(Failure::invalid(&format!("`lasts_seconds` is from 1 to {LONGEST}.")));
        }
        let lasting = lasts_seconds.map(Duration::from_secs);
        changed(&api, &who, "log.set", Some(&filter), lasting)
    };
    setting.await.map_err(Failure::response)
}

async fn reset(State(api): State<Api>, Extension(Who(who)): Extension<Who>) -> Result<Response, Response> {
    changed(&api, &who, "log.reset", None, None).map_err(Failure::response)
}

fn changed(
    api: &Api,
    who: &str,
    action: &'static str,
    filter: Option<&str>,
    lasting: Option<Duration>,
) -> Result<Response, Failure> {
    let control = api.control()?;
    let before = json!(control.log_filter());
    control.set_log_filter(filter, lasting).map_err(no_log)?;
    let after = json!(control.log_filter());
    api.gateway()?.audit(Change { who, action, subject: "log".to_owned(), tenant: None, before, after });
    told(api)
}

fn told(api: &Api) -> Result<Response, Failure> {
    Ok(answer(StatusCode::OK, &api.control()?.log_filter()))
}

fn no_log(error: NoLog) -> Failure {
    Failure { status: StatusCode::CONFLICT, code: "no_log", message: format!("The filter cannot be set: {error}.") }
}
