//! Where the configuration says that traces go.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::config::{Config, TracesConfig};
use crate::gateway::Gateway;
use crate::telemetry::{TraceConfig, Traces};

/// The longest that the end waits for the collector.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn open(config: &Config) -> Result<Traces, StartError> {
    let Some(TracesConfig { endpoint, headers, sample, follow_clients, service_name, timeout }) = &config.traces else {
        return Ok(Traces::default());
    };
    let mut read = Vec::new();
    for (name, secret) in headers {
        let value = secret.read().map_err(|error| StartError::Traces(format!("headers.{name}: {error}")))?;
        read.push((name.clone(), value));
    }
    let config = TraceConfig {
        endpoint: endpoint.clone(),
        headers: read,
        sample: *sample,
        follow_clients: *follow_clients,
        service_name: service_name.clone(),
        timeout: *timeout,
    };
    Traces::open(&config).map_err(|error| StartError::Traces(error.to_string()))
}

/// Sends what is left of them.
pub(super) async fn close(gateway: &Arc<Gateway>) {
    let gateway = gateway.clone();
    // It waits for the collector.
    let closing = tokio::task::spawn_blocking(move || gateway.traces().close(PATIENCE));
    // It does nothing that could fail.
    let _ = closing.await;
}
