//! `[bases.NAME]` and `[workers.NAME]`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::{BaseName, TenantId};

use super::section::{Findings, Section, bytes_in, choice, duration_in, expected, number, text};
use super::tree::{Node, Value};
use super::validate::{Folder, id};
use super::{BaseConfig, DriverConfig, EngineConfig, FixedAdapter, Precision, RemoteConfig, WorkerConfig, discovery};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const TIB: u64 = 1 << 40;

/// Base models by name. A base of which something is wrong is listed all the
/// same, so that what refers to it is not called wrong as well.
pub(super) fn bases(root: &mut Section<'_>, folder: &Folder<'_>, findings: &Findings<'_>) -> Vec<BaseConfig> {
    root.require_entries("bases");
    let mut bases = Vec::new();
    for (name, entry) in root.named("bases") {
        findings.check(&entry.path, id(name));
        let mut section = Section::of(entry, findings);
        // A path that is a problem is there all the same, empty.
        let path = section.has("path").then(|| section.optional("path", |node| folder.path(node)).unwrap_or_default());
        let source = section.optional("source", texts).unwrap_or_default();
        section.finish();
        bases.push(BaseConfig { name: BaseName::new(name), path, source });
    }
    bases
}

pub(super) fn workers(
    root: &mut Section<'_>,
    bases: &[BaseConfig],
    folder: &Folder<'_>,
    findings: &Findings<'_>,
) -> Vec<WorkerConfig> {
    let mut workers = Vec::new();
    for (name, entry) in root.named("workers") {
        findings.check(&entry.path, id(name));
        workers.push(worker(name, Section::of(entry, findings), bases, folder, findings));
    }
    for base in bases {
        let mut serving = workers.iter().filter(|worker| worker.bases.contains(&base.name)).peekable();
        let path = super::tree::join("bases", base.name.as_str());
        if serving.peek().is_none() {
            findings.add(&path, "no worker serves this base model");
        }
        if base.path.is_none() && serving.any(|worker| worker.embedded().is_some()) {
            findings.add(&super::tree::join(&path, "path"), "missing");
        }
    }
    workers
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Embedded,
    Grpc,
    Vllm,
    LlamaCpp,
    OpenAi,
}

fn worker(
    name: &str,
    mut section: Section<'_>,
    bases: &[BaseConfig],
    folder: &Folder<'_>,
    findings: &Findings<'_>,
) -> WorkerConfig {
    let kinds = [
        ("embedded", Kind::Embedded),
        ("grpc", Kind::Grpc),
        ("vllm", Kind::Vllm),
        ("llamacpp", Kind::LlamaCpp),
        ("openai", Kind::OpenAi),
    ];
    let kind = section.required("driver", choice(&kinds)).unwrap_or(Kind::Embedded);
    let served = served(&mut section, bases, findings);
    let driver = match kind {
        Kind::Embedded => DriverConfig::Embedded(engine(&mut section, findings)),
        Kind::Grpc => DriverConfig::Grpc(remote(&mut section, &[], "", folder, findings)),
        Kind::Vllm => {
            let remote = remote(&mut section, &served, "", folder, findings);
            let range = Duration::ZERO..=Duration::from_secs(24 * 3600);
            let sleep_after = section.optional("sleep_after", duration_in(range)).filter(|after| !after.is_zero());
            DriverConfig::Vllm { remote, sleep_after }
        }
        Kind::LlamaCpp => {
            let remote = remote(&mut section, &served, "", folder, findings);
            if served.len() > 1 {
                findings.add(&section.child("bases"), "a llama.cpp server has one base model");
            }
            DriverConfig::LlamaCpp { remote, adapters: fixed(&mut section, findings) }
        }
        Kind::OpenAi => DriverConfig::OpenAi(remote(&mut section, &served, "/v1", folder, findings)),
    };
    let (mut adapter_bytes, mut max_adapter_rank) = (512 * MIB, 64);
    if matches!(kind, Kind::Embedded | Kind::Grpc | Kind::Vllm) {
        adapter_bytes = section.optional("adapter_bytes", bytes_in(MIB..=TIB)).unwrap_or(adapter_bytes);
        max_adapter_rank = section.optional("max_adapter_rank", number(1..=512)).map_or(64, |rank| rank as usize);
    }
    let mut count = |key, most| section.optional(key, number(0..=most)).filter(|count| *count > 0);
    let adapters = matches!(kind, Kind::Embedded | Kind::Grpc | Kind::Vllm);
    let adapter_slots = adapters.then(|| count("adapter_slots", 1_000_000)).flatten().map(|slots| slots as usize);
    // The others say so themselves.
    let tells = matches!(kind, Kind::Embedded | Kind::Grpc);
    let slots = (!tells).then(|| count("slots", 1_000_000)).flatten();
    section.finish();
    WorkerConfig { name: name.to_owned(), bases: served, driver, adapter_bytes, adapter_slots, max_adapter_rank, slots }
}

/// The keys of an engine that runs in this process.
pub(super) fn engine(section: &mut Section<'_>, findings: &Findings<'_>) -> EngineConfig {
    let precision = section.optional("precision", choice(&[("fast", Precision::Fast), ("exact", Precision::Exact)]));
    let mut count = |key, range: RangeInclusive<u64>, default: usize| {
        section.optional(key, number(range)).map_or(default, |number| number as usize)
    };
    let threads = NonZeroUsize::new(count("threads", 0..=1_024, 0));
    let max_batch_rows = count("max_batch_rows", 1..=1_024, 32);
    let prefill_chunk = count("prefill_chunk", 1..=65_536, 256);
    let queue = count("queue", 1..=1_000_000, 256);
    let context = Some(count("context", 0..=16_777_216, 0)).filter(|tokens| *tokens > 0);
    let kv_bytes = section.optional("kv_bytes", bytes_in(MIB..=TIB));
    let memory_bytes = section.optional("memory_bytes", bytes_in(0..=TIB)).filter(|bytes| *bytes > 0);
    if kv_bytes.is_some() && memory_bytes.is_some() {
        let message = "`memory_bytes` says what everything may take, and keys and values get what is left of it";
        findings.add(&section.child("kv_bytes"), message);
    }
    EngineConfig {
        threads,
        precision: precision.unwrap_or(Precision::Fast),
        max_batch_rows,
        prefill_chunk,
        queue,
        kv_bytes: kv_bytes.unwrap_or(1_024 * MIB),
        memory_bytes,
        context,
    }
}

/// The keys of a worker in another process; `models` are base models that it may have names of its own for, and `path`
/// is what its URL ends with.
fn remote(
    section: &mut Section<'_>,
    models: &[BaseName],
    path: &str,
    folder: &Folder<'_>,
    findings: &Findings<'_>,
) -> RemoteConfig {
    let url_given = section.has("url");
    let url = section.optional("url", |node| text(node).and_then(url)).unwrap_or_default();
    let discover_given = section.has("discover");
    let discover = section.section("discover");
    let discover = discover_given.then(|| discovery::discover(discover, path, folder, findings)).flatten();
    match (url_given, discover_given) {
        (true, true) => findings.add(&section.path, "has both `url` and `discover`"),
        (false, false) if section.is_table() => findings.add(&section.path, "has neither `url` nor `discover`"),
        _ => {}
    }
    let key = section.optional("key", super::secret::reference(folder));
    let mut time = |key, default| {
        let range = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
        section.optional(key, duration_in(range)).unwrap_or(Duration::from_secs(default))
    };
    let connect_timeout = time("connect_timeout", 2);
    let first_byte_timeout = time("first_byte_timeout", 120);
    let stall_timeout = time("stall_timeout", 60);
    let load_timeout = time("load_timeout", 60);
    let poll_interval = time("poll_interval", 1);
    let mut names = BTreeMap::new();
    if !models.is_empty() {
        for (base, entry) in section.named("models") {
            let base = BaseName::new(base);
            if !models.contains(&base) {
                findings.add(&entry.path, format!("the worker does not serve `{base}`"));
            }
            if let Some(name) = findings.check(&entry.path, text(entry.node)) {
                names.insert(base, name);
            }
        }
    }
    RemoteConfig {
        url,
        discover,
        key,
        models: names,
        connect_timeout,
        first_byte_timeout,
        stall_timeout,
        load_timeout,
        poll_interval,
    }
}

pub(super) fn url(text: String) -> Result<String, String> {
    let plain = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or_default();
    if plain.is_empty() || !text.bytes().all(|c| c.is_ascii_graphic()) || plain.contains('@') {
        return Err("expected the worker's address, such as http://127.0.0.1:8101".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Adapters that a worker was started with.
fn fixed(section: &mut Section<'_>, findings: &Findings<'_>) -> Vec<FixedAdapter> {
    let mut adapters = Vec::new();
    for entry in section.list("adapters") {
        let mut entry = Section::of(entry, findings);
        let name = |node: &Node| text(node).and_then(|text| id(&text).map(|()| text));
        let tenant = entry.required("tenant", name);
        let adapter = entry.required("name", name);
        let revision = entry.optional("revision", number(1..=u32::MAX.into())).unwrap_or(1) as u32;
        let file = entry.required("file", text);
        entry.finish();
        let (Some(tenant), Some(name), Some(file)) = (tenant, adapter, file) else { continue };
        adapters.push(FixedAdapter { tenant: TenantId::new(tenant), name: name.into(), revision, file });
    }
    adapters
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
        let path = text(node)?;
        if path.is_empty() || path.contains('\0') {
            return Err("expected a path".to_owned());
        }
        Ok(self.join(node, &path))
    }

    /// A path that stands in `node`'s text.
    pub(super) fn join(&self, node: &Node, path: &str) -> PathBuf {
        use super::problem::Place;

        match node.place {
            Place::File { .. } => self.0.join(path),
            Place::Variable(_) => PathBuf::from(path),
        }
    }
}
