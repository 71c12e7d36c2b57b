//! From the tree to a [`Config`]: pure, and done with all of it before it says
//! what is wrong.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::gateway::{AdmissionConfig, Config as GatewayConfig};
use crate::telemetry::{LogConfig, LogFormat};
use crate::types::QueueOrder;

use super::boot::Boot;
use super::problem::Problem;
use super::section::{Entry, Findings, Section, boolean, bytes_in, choice, duration_in, number, text};
use super::tenants::Tenants;
use super::tree::{Node, Places};
use super::{
    AdminKey, Config, Cors, OpsConfig, ReloadConfig, ServerConfig, ShutdownConfig, catalogue, guard, observe, ratings,
    workers,
};

/// The folder of the file.
pub(super) struct Folder<'a>(pub(super) &'a Path);

const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where there are problems, the configuration beside them has placeholders in
/// their places, and is good for nothing but finding more of them.
pub(super) fn validate(tree: &Node, folder: &Folder<'_>) -> (Config, Vec<Problem>) {
    let places = Places::of(tree);
    let findings = Findings::new(&places);
    let mut root = Section::of(Entry { path: String::new(), node: tree }, &findings);

    let (server, request_timeout) = server(root.section("server"), &findings);
    let ops = ops(root.section("ops"));
    if shared_socket(server.listen, ops.listen) {
        findings.add("ops.listen", format!("{} is where `server.listen` listens already", ops.listen));
    }
    let shutdown = shutdown(root.section("shutdown"));
    let log = log(root.section("log"), &findings);
    let metrics = observe::metrics(root.section("metrics"));
    let traces = root.has("traces").then(|| observe::traces(root.section("traces"), folder, &findings));
    let reload = reload(root.section("reload"));
    let admission = queue(root.section("queue"));
    let gateway = gateway(root.section("gateway"), request_timeout, admission);
    let catalogue = catalogue::catalogue(root.section("catalogue"), folder);
    let ratings = ratings::ratings(root.section("ratings"), folder, &catalogue.data_dir, &findings);
    let redis = root.has("redis").then(|| catalogue::redis(root.section("redis"), folder));
    let bases = workers::bases(&mut root, folder, &findings);
    let workers = workers::workers(&mut root, &bases, folder, &findings);
    let (guard, policies) = guard::guard(root.section("guard"), folder, &bases, &findings);
    let Tenants { tenants, adapters, .. } = Tenants::read(&mut root, folder, &bases, &policies, &findings);
    root.finish();

    let problems = findings.into_problems();
    (
        Config {
            server,
            ops,
            shutdown,
            log,
            metrics,
            traces,
            reload,
            gateway,
            catalogue,
            redis,
            guard,
            ratings,
            bases,
            workers,
            tenants,
            adapters,
            boot: Boot::of(tree),
            places,
        },
        problems,
    )
}

/// Works, but deserves a second look.
pub(super) fn warnings(config: &Config) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let public = config.server.listen;
    if !public.ip().is_loopback() && config.demo_keys().next().is_some() {
        let message = format!("{public} can be reached from other machines, and the demonstration keys are public");
        warnings.push(config.problem("server.listen", message));
    }
    warnings
}

fn server(mut section: Section<'_>, findings: &Findings<'_>) -> (ServerConfig, Duration) {
    let listen = section.optional("listen", address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
    let max_body_bytes = section.optional("max_body_bytes", bytes_in(1_024..=1 << 30)).unwrap_or(4 << 20);
    let mut time = |key, range: RangeInclusive<Duration>, default| {
        section.optional(key, duration_in(range)).unwrap_or(Duration::from_secs(default))
    };
    let header_read_timeout = time("header_read_timeout", MOMENT..=10 * MINUTE, 10);
    let body_read_timeout = time("body_read_timeout", MOMENT..=60 * MINUTE, 30);
    let request_timeout = time("request_timeout", MOMENT..=DAY, 600);
    let hold = time("hold", MOMENT..=10 * MINUTE, 10);
    let cors = cors(section.section("cors"), findings);
    section.finish();
    let max_body_bytes = max_body_bytes as usize;
    (ServerConfig { listen, max_body_bytes, header_read_timeout, body_read_timeout, hold, cors }, request_timeout)
}

fn cors(mut section: Section<'_>, findings: &Findings<'_>) -> Cors {
    let mut origins = Vec::new();
    for entry in section.list("allow_origins") {
        if let Some(given) = findings.check(&entry.path, text(entry.node).and_then(origin)) {
            origins.push(given);
        }
    }
    let any = origins.iter().any(|origin| origin == "*");
    if any && origins.len() > 1 {
        findings.add(&section.child("allow_origins"), "\"*\" allows every origin and stands alone");
    }
    section.finish();
    match origins.is_empty() {
        true => Cors::Off,
        false if any => Cors::Any,
        false => Cors::Origins(origins),
    }
}

fn ops(mut section: Section<'_>) -> OpsConfig {
    let listen = section.optional("listen", address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9090)));
    let mut key = section.section("admin_key");
    let hash = key.optional("sha256", |node| text(node)?.parse().map_err(|error| format!("{error}")));
    let name = key.optional("name", |node| text(node).and_then(|text| id(&text).map(|()| text)));
    key.finish();
    section.finish();
    let named = |hash| AdminKey { hash, name: name.as_deref().unwrap_or("admin").into() };
    OpsConfig { listen, admin_key: hash.map(named) }
}

fn reload(mut section: Section<'_>) -> ReloadConfig {
    let watch = section.optional("watch", boolean).unwrap_or(true);
    let interval = section.optional("interval", duration_in(Duration::from_millis(10)..=60 * MINUTE));
    section.finish();
    ReloadConfig { watch, interval: interval.unwrap_or(Duration::from_secs(1)) }
}

pub(super) fn shutdown(mut section: Section<'_>) -> ShutdownConfig {
    let drain_timeout = section.optional("drain_timeout", duration_in(Duration::ZERO..=DAY));
    section.finish();
    ShutdownConfig { drain_timeout: drain_timeout.unwrap_or(Duration::from_secs(30)) }
}

pub(super) fn log(mut section: Section<'_>, findings: &Findings<'_>) -> LogConfig {
    let mut log = LogConfig::default();
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    log.format = section.optional("format", choice(&formats)).unwrap_or(log.format);
    log.filter = section.optional("filter", text).unwrap_or(log.filter);
    findings.check(&section.child("filter"), log.check());
    section.finish();
    log
}

fn gateway(mut section: Section<'_>, request_timeout: Duration, admission: AdmissionConfig) -> GatewayConfig {
    let usual = GatewayConfig::default().attempts;
    let attempts = section.optional("attempts", number(1..=10)).map_or(usual, |attempts| attempts as u32);
    section.finish();
    GatewayConfig { request_timeout, attempts, admission }
}

fn queue(mut section: Section<'_>) -> AdmissionConfig {
    let usual = AdmissionConfig::default();
    let waits = Duration::from_millis(1)..=Duration::from_secs(3600);
    let orders = [("fair", QueueOrder::Fair), ("arrival", QueueOrder::Arrival)];
    let queue = AdmissionConfig {
        max_wait: section.optional("max_wait", duration_in(waits)).unwrap_or(usual.max_wait),
        max_waiting: section
            .optional("max_waiting", number(0..=1_000_000))
            .map_or(usual.max_waiting, |most| most as usize),
        order: section.optional("order", choice(&orders)).unwrap_or(usual.order),
        headroom_percent: section
            .optional("headroom_percent", number(0..=90))
            .map_or(usual.headroom_percent, |percent| percent as u32),
    };
    section.finish();
    queue
}

/// Whether the second of two listeners could not be opened.
fn shared_socket(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_ip
}

pub(super) fn address(node: &Node) -> Result<SocketAddr, String> {
    let text = text(node)?;
    text.parse().map_err(|_| format!("`{text}` is not an IP address and a port, such as 127.0.0.1:8080"))
}

/// What a browser sends as `origin`: no path, not even a slash.
fn origin(text: String) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let plain = !host.is_empty() && host.bytes().all(|c| c.is_ascii_graphic() && !b"/?#@*,\"".contains(&c));
    if plain || text == "*" {
        return Ok(text);
    }
    Err(format!("`{text}` is not an origin, such as https://example.com, nor \"*\""))
}

/// Ids stand in metrics, logs and paths, so they are kept plain.
pub(super) fn id(text: &str) -> Result<(), String> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) && !matches!(text, "." | "..") {
        return Ok(());
    }
    Err(format!("`{text}` is not a name of 1 to 64 characters out of a-z, 0-9, `.`, `_` and `-`"))
}

/// A model's name is what clients write, so it may be nearly anything.
pub(super) fn model_name(text: &str) -> Result<(), String> {
    // `.` and `..` would be steps in the admin API's paths.
    let step = matches!(text, "." | "..");
    if (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control) && !step {
        return Ok(());
    }
    Err("a model's name has 1 to 128 characters and no control characters, and is neither `.` nor `..`".to_owned())
}
