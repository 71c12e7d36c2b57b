//! What of a configuration is read once, at the start, and what of that a
//! later one has otherwise: it then waits for a restart.

use std::collections::{BTreeMap, BTreeSet};

use super::Config;
use super::tree::{Node, Value, join};

/// Tables, and single keys, that are read at the start alone.
const AT_THE_START: [&[&str]; 11] = [
    &["server", "gateway", "queue"],
    &["ops"],
    &["shutdown"],
    &["log.format"],
    &["metrics"],
    &["traces"],
    &["reload"],
    &["catalogue"],
    &["redis"],
    &["ratings"],
    &["guard.stage2"],
];

/// The values of those keys as they were written, by their paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Boot(BTreeMap<String, String>);

// === impl Boot ===

impl Boot {
    pub(super) fn of(root: &Node) -> Self {
        let mut boot = Self::default();
        boot.add("", root);
        boot
    }

    fn add(&mut self, path: &str, node: &Node) {
        match &node.value {
            Value::Table(table) => table.iter().for_each(|(key, node)| self.add(&join(path, key), node)),
            value if AT_THE_START.iter().copied().flatten().any(|root| is_within(path, root)) => {
                self.0.insert(path.to_owned(), written(value));
            }
            _ => {}
        }
    }

    /// The keys within these tables that differ.
    fn differing<'a>(&'a self, other: &'a Self, roots: &[&str]) -> BTreeSet<&'a str> {
        let within = |path: &&String| roots.iter().any(|root| is_within(path, root));
        let both = self.0.keys().chain(other.0.keys()).filter(within);
        both.filter(|path| self.0.get(*path) != other.0.get(*path)).map(String::as_str).collect()
    }
}

fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A text that equal values share, whether the file has them or a variable.
fn written(value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Unquoted(text, _) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Decimal(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Other(kind) => (*kind).to_owned(),
        Value::List(entries) => entries.iter().map(|entry| written(&entry.value) + "\n").collect(),
        Value::Table(table) => table.iter().map(|(key, node)| format!("{key}={}\n", written(&node.value))).collect(),
    }
}

// === impl Config ===

impl Config {
    /// The keys that `newer` has otherwise and that only a restart applies.
    pub fn waiting_for_restart(&self, newer: &Self) -> Vec<String> {
        let same = |roots: &[&str]| match roots[0] {
            "server" => self.server == newer.server && self.gateway == newer.gateway,
            "ops" => self.ops == newer.ops,
            "shutdown" => self.shutdown == newer.shutdown,
            "log.format" => self.log.format == newer.log.format,
            "metrics" => self.metrics == newer.metrics,
            "traces" => self.traces == newer.traces,
            "reload" => self.reload == newer.reload,
            "catalogue" => self.catalogue == newer.catalogue,
            "redis" => self.redis == newer.redis,
            "ratings" => self.ratings == newer.ratings,
            _ => self.guard.stage2 == newer.guard.stage2,
        };
        let mut waiting = Vec::new();
        for roots in AT_THE_START.into_iter().filter(|roots| !same(roots)) {
            let keys = self.boot.differing(&newer.boot, roots);
            // What depends on another key, such as a folder on that of the catalogue.
            let named = if keys.is_empty() { BTreeSet::from([roots[0]]) } else { keys };
            waiting.extend(named.into_iter().map(str::to_owned));
        }
        waiting
    }
}
