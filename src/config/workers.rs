//! `[bases.NAME]` and `[workers.NAME]`.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::types::BaseName;

use super::section::{Findings, Section, bytes_in, choice, expected, number, text};
use super::tree::{Node, Value};
use super::validate::{Folder, id};
use super::{BaseConfig, DriverKind, Precision, WorkerConfig};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Base models by name. A base of which something is wrong is listed all the
/// same, so that what refers to it is not called wrong as well.
pub(super) fn bases(root: &mut Section<'_>, folder: &Folder<'_>, findings: &Findings<'_>) -> Vec<BaseConfig> {
    root.require_entries("bases");
    let mut bases = Vec::new();
    for (name, entry) in root.named("bases") {
        findings.check(&entry.path, id(name));
        let mut section = Section::of(entry, findings);
        let path = section.required("path", |node| folder.path(node)).unwrap_or_default();
        let source = section.optional("source", texts).unwrap_or_default();
        section.finish();
        bases.push(BaseConfig { name: BaseName::new(name), path, source });
    }
    bases
}

pub(super) fn workers(root: &mut Section<'_>, bases: &[BaseConfig], findings: &Findings<'_>) -> Vec<WorkerConfig> {
    let mut workers = Vec::new();
    for (name, entry) in root.named("workers") {
        findings.check(&entry.path, id(name));
        workers.push(worker(name, Section::of(entry, findings), bases, findings));
    }
    for base in bases {
        if !workers.iter().any(|worker| worker.bases.contains(&base.name)) {
            findings.add(&super::tree::join("bases", base.name.as_str()), "no worker serves this base model");
        }
    }
    workers
}

fn worker(name: &str, mut section: Section<'_>, bases: &[BaseConfig], findings: &Findings<'_>) -> WorkerConfig {
    let driver = section.required("driver", choice(&[("embedded", DriverKind::Embedded)]));
    let precision = section.optional("precision", choice(&[("fast", Precision::Fast), ("exact", Precision::Exact)]));
    let served = served(&mut section, bases, findings);
    let mut count = |key, range: RangeInclusive<u64>, default: usize| {
        section.optional(key, number(range)).map_or(default, |number| number as usize)
    };
    let threads = NonZeroUsize::new(count("threads", 0..=1_024, 0));
    let max_batch_rows = count("max_batch_rows", 1..=1_024, 32);
    let prefill_chunk = count("prefill_chunk", 1..=65_536, 256);
    let queue = count("queue", 1..=1_000_000, 256);
    let max_adapter_rank = count("max_adapter_rank", 1..=512, 64);
    let context = Some(count("context", 0..=16_777_216, 0)).filter(|tokens| *tokens > 0);
    let kv_bytes = section.optional("kv_bytes", bytes_in(MIB..=TIB)).unwrap_or(1_024 * MIB);
    let adapter_bytes = section.optional("adapter_bytes", bytes_in(MIB..=TIB)).unwrap_or(512 * MIB);
    section.finish();
    WorkerConfig {
        name: name.to_owned(),
        driver: driver.unwrap_or(DriverKind::Embedded),
        bases: served,
        threads,
        precision: precision.unwrap_or(Precision::Fast),
        max_batch_rows,
        prefill_chunk,
        queue,
        kv_bytes,
        adapter_bytes,
        max_adapter_rank,
        context,
    }
}

/// The base models that a worker serves; at least one, each once.
fn served(section: &mut Section<'_>, bases: &[BaseConfig], findings: &Findings<'_>) -> Vec<BaseName> {
    section.require_entries("bases");
    let mut served = Vec::new();
    for entry in section.list("bases") {
        let Some(name) = findings.check(&entry.path, text(entry.node)) else { continue };
        let base = BaseName::new(name);
        if !bases.iter().any(|known| known.name == base) {
            findings.add(&entry.path, no_base(&base, bases));
        } else if served.contains(&base) {
            findings.add(&entry.path, format!("`{base}` is listed twice"));
        }
        served.push(base);
    }
    served
}

pub(super) fn no_base(base: &BaseName, bases: &[BaseConfig]) -> String {
    let names: Vec<&str> = bases.iter().map(|base| base.name.as_str()).collect();
    match names.is_empty() {
        true => format!("there is no base model `{base}`"),
        false => format!("there is no base model `{base}`; there is {}", names.join(", ")),
    }
}

/// A text or a list of texts.
fn texts(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::List(nodes) => nodes.iter().map(text).collect(),
        Value::Text(_) | Value::Unquoted(..) => Ok(vec![text(node)?]),
        other => Err(expected("a text or a list of texts", other)),
    }
}

// === impl Folder ===

impl Folder<'_> {
    /// A path in the file is relative to the file's folder, and a path in a
    /// variable to the working directory.
    pub(super) fn path(&self, node: &Node) -> Result<PathBuf, String> {
        use super::problem::Place;

        let path = text(node)?;
        if path.is_empty() || path.contains('\0') {
            return Err("expected a path".to_owned());
        }
        Ok(match node.place {
            Place::File { .. } => self.0.join(path),
            Place::Variable(_) => PathBuf::from(path),
        })
    }
}
