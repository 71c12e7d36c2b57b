//! What operators ask of the process itself, and who does it: the app, which
//! knows the configuration and the log. And `/admin/v1/config`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde::Serialize;

use super::Api;
use super::access::Who;
use super::answer::{Failure, answer};
use crate::telemetry::NoLog;

/// There when the gateway is.
pub type Steering = Arc<OnceLock<Arc<dyn Control>>>;

pub trait Control: Send + Sync + 'static {
    fn configuration(&self) -> Configuration;

    /// Reads the configuration again; to its end, if nobody waits for it too.
    fn reload(&self, who: &str) -> BoxFuture<'static, Reload>;

    fn log_filter(&self) -> LogFilter;

    /// Goes by another filter, for so long or until it is set back; `None`: by
    /// the configuration's again.
    ///
    /// # Errors
    ///
    /// There is no log to be changed.
    fn set_log_filter(&self, filter: Option<&str>, lasting: Option<Duration>) -> Result<(), NoLog>;
}

/// The configuration that is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configuration {
    pub file: String,
    /// The file is read again when it has changed.
    pub watched: bool,
    /// Unix seconds.
    pub loaded: u64,
    /// Keys that the file has otherwise since the start.
    pub waiting_for_restart: Vec<String>,
    pub last_reload: Option<Reload>,
}

/// One time that the configuration was read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// Unix seconds.
    pub at: u64,
    /// `signal`, `file` or `operator`.
    pub trigger: &'static str,
    pub applied: bool,
    /// Why not; each with its place in the file.
    pub problems: Vec<String>,
    pub waiting_for_restart: Vec<String>,
    pub workers_started: Vec<String>,
    pub workers_left: Vec<String>,
}

/// What of the log is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogFilter {
    pub filter: String,
    pub configured: String,
    /// By an operator.
    pub set: bool,
    /// Unix seconds; then it is the configuration's again.
    pub until: Option<u64>,
}

pub(super) fn routes() -> [(&'static str, MethodRouter<Api>); 2] {
    [("/admin/v1/config", get(configuration)), ("/admin/v1/config/reload", post(reload))]
}

async fn configuration(State(api): State<Api>) -> Result<Response, Response> {
    let control = api.control().map_err(Failure::response)?;
    Ok(answer(StatusCode::OK, &control.configuration()))
}

async fn reload(State(api): State<Api>, Extension(Who(who)): Extension<Who>) -> Result<Response, Response> {
    let reload = api.control().map_err(Failure::response)?.reload(&who).await;
    if reload.applied {
        return Ok(answer(StatusCode::OK, &reload));
    }
    let message = format!("The configuration is not taken; all is as before. {}", reload.problems.join("; "));
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(Failure { status, code: "configuration_refused", message }.response())
}
