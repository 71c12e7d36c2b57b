//! `[metrics]`, how many series there may be, and `[traces]`, where traces go.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::{Entry, Findings, Section, boolean, decimal, duration_in, number, text};
use super::tree::Node;
use super::validate::Folder;
use super::{TracesConfig, secret};
use crate::telemetry::MetricsConfig;

pub(super) fn metrics(mut section: Section<'_>) -> MetricsConfig {
    let usual = MetricsConfig::default();
    let most = |number: Option<u64>, usual| number.map_or(usual, |most| most as usize);
    let metrics = MetricsConfig {
        tenants: most(section.optional("max_tenants", number(0..=1_000_000)), usual.tenants),
        models: most(section.optional("max_models", number(0..=1_000_000)), usual.models),
    };
    section.finish();
    metrics
}

pub(super) fn traces<'a>(mut section: Section<'a>, folder: &Folder<'_>, findings: &'a Findings<'a>) -> TracesConfig {
    let endpoint = section.required("endpoint", endpoint).unwrap_or_default();
    let mut headers = BTreeMap::new();
    for (name, Entry { path, node }) in section.named("headers") {
        if findings.check(&path, header(name)).is_some()
            && let Some(value) = findings.check(&path, secret::reference(folder)(node))
        {
            headers.insert(name.to_owned(), value);
        }
    }
    let patience = Duration::from_millis(100)..=Duration::from_secs(300);
    let traces = TracesConfig {
        endpoint,
        headers,
        sample: section.optional("sample", decimal(0.0..=1.0)).unwrap_or(1.0),
        follow_clients: section.optional("follow_clients", boolean).unwrap_or(true),
        service_name: section.optional("service_name", text).unwrap_or_else(|| "tenantry".to_owned()),
        timeout: section.optional("timeout", duration_in(patience)).unwrap_or(Duration::from_secs(10)),
    };
    section.finish();
    traces
}

fn endpoint(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    let uri = text.parse::<http::Uri>().ok();
    let known = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if known {
        return Ok(text);
    }
    Err(format!("`{text}` is not the URL of an OTLP collector that speaks gRPC, such as http://127.0.0.1:4317"))
}

/// Of gRPC metadata; a name that ends in `-bin` would be for bytes.
fn header(name: &str) -> Result<(), String> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if !name.is_empty() && name.bytes().all(plain) && !name.ends_with("-bin") {
        return Ok(());
    }
    Err(format!("`{name}` is not a header's name out of a-z, 0-9, `.`, `_` and `-`"))
}
