//! The admin API, as the commands that speak to a running gateway use it.

use std::env;
use std::time::Duration;

use clap::Args;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::Failure;

/// What its key is read from: an argument would be in the shell's history.
const KEY: &str = "TENANTRY_ADMIN_KEY";

#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The gateway's operations listener. Its key, where it asks for one, is
    /// read from TENANTRY_ADMIN_KEY
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    server: String,
    /// Print the server's answer as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

pub(crate) struct Api {
    server: String,
    client: Client,
}

// === impl Server ===

impl Server {
    /// Runs `work` with the API at hand.
    pub(crate) fn run(&self, work: impl AsyncFnOnce(Api) -> Result<(), Failure>) -> Result<(), Failure> {
        // TLS needs one provider for the process.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| other(error.to_string()))?;
        let api = Api { server: self.server.trim_end_matches('/').to_owned(), client: Client::new() };
        runtime.block_on(work(api))
    }
}

// === impl Api ===

impl Api {
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = format!("{}/admin/v1", self.server);
        for part in path {
            url.push('/');
            // A client would take a step out of the path for it, and change something else.
            if matches!(*part, "." | "..") {
                url.push('~');
            }
            // A name that is none is refused by the server, in words.
            url.extend(part.bytes().map(|c| match c {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => (c as char).to_string(),
                other => format!("%{other:02X}"),
            }));
        }
        let request = self.client.request(method, url);
        match env::var(KEY) {
            Ok(key) => request.bearer_auth(key),
            Err(_) => request,
        }
    }

    /// What the listener says on a path that asks for no key.
    pub(crate) async fn look(&self, path: &str, within: Duration) -> Result<(StatusCode, String), Failure> {
        let said = async {
            let answer = self.client.get(format!("{}/{path}", self.server)).timeout(within).send().await?;
            Ok((answer.status(), answer.text().await?))
        };
        said.await.map_err(|error: reqwest::Error| other(format!("{}: {}", self.server, because(&error))))
    }

    /// The server's answer, or what it says is wrong.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let answer = request.send().await.map_err(|error| other(format!("{}: {}", self.server, because(&error))))?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| other(because(&error)))?;
        let value: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let said = value.pointer("/error/message").and_then(Value::as_str).unwrap_or(&body);
        let code = value.pointer("/error/code").and_then(Value::as_str).unwrap_or("error");
        Err(other(format!("{said} ({code}, {})", status.as_u16())))
    }
}

pub(super) fn other(message: String) -> Failure {
    Failure::Other(message)
}

/// The innermost cause says what happened.
fn because(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
