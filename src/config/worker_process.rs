//! The file of `tenantry worker`: `[worker]`, its base models, and what every
//! process has.

use std::net::SocketAddr;

use super::problem::Problem;
use super::section::{Entry, Findings, Section, bytes_in, number, text};
use super::tree::{Node, Places};
use super::validate::{Folder, address, log, shutdown};
use super::workers::{self, MIB, TIB};
use super::{ShutdownConfig, WorkerProcess};

/// As [`validate`](super::validate::validate), of a worker's file.
pub(super) fn validate(tree: &Node, folder: &Folder<'_>) -> (WorkerProcess, Vec<Problem>) {
    let places = Places::of(tree);
    let findings = Findings::new(&places);
    let mut root = Section::of(Entry { path: String::new(), node: tree }, &findings);

    let mut section = root.section("worker");
    let listen = section.optional("listen", address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9101)));
    let mut key = section.section("key");
    let hash = key.optional("sha256", |node| text(node)?.parse().map_err(|error| format!("{error}")));
    key.finish();
    if !listen.ip().is_loopback() && hash.is_none() {
        let message = format!("{listen} can be reached from other machines, so a `key` is needed");
        findings.add(&section.child("listen"), message);
    }
    let engine = workers::engine(&mut section, &findings);
    let max_adapter_rank = section.optional("max_adapter_rank", number(1..=512)).map_or(64, |rank| rank as usize);
    let adapter_bytes = section.optional("adapter_bytes", bytes_in(MIB..=TIB)).unwrap_or(512 * MIB);
    section.finish();
    let shutdown: ShutdownConfig = shutdown(root.section("shutdown"));
    let log = log(root.section("log"), &findings);
    let bases = workers::bases(&mut root, folder, &findings);
    for base in bases.iter().filter(|base| base.path.is_none()) {
        let path = super::tree::join(&super::tree::join("bases", base.name.as_str()), "path");
        findings.add(&path, "missing");
    }
    root.finish();

    let problems = findings.into_problems();
    let process =
        WorkerProcess { listen, key: hash, shutdown, log, bases, engine, adapter_bytes, max_adapter_rank, places };
    (process, problems)
}
