//! Reading a table key by key, with every problem noted and none fatal.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::Problem;
use super::tree::{self, Node, Places, Table, Value};
use super::{bytes, duration};

/// The problems found so far.
pub(super) struct Findings<'a> {
    places: &'a Places,
    problems: RefCell<Vec<Problem>>,
}

/// A table of the file. Keys that nobody asked for are unknown keys.
pub(super) struct Section<'a> {
    pub(super) path: String,
    table: Option<&'a Table>,
    findings: &'a Findings<'a>,
    asked: Vec<&'static str>,
}

/// A table's entry or a list's, with its path.
pub(super) struct Entry<'a> {
    pub(super) path: String,
    pub(super) node: &'a Node,
}

// === impl Findings ===

impl<'a> Findings<'a> {
    pub(super) fn new(places: &'a Places) -> Self {
        Self { places, problems: RefCell::default() }
    }

    pub(super) fn add(&self, path: &str, message: impl Into<String>) {
        let problem = Problem { place: self.places.of_path(path), path: path.to_owned(), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// The value, or its problem noted.
    pub(super) fn check<T>(&self, path: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(path, message)).ok()
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The table at `entry`; empty, with the problem noted, where it is none.
    pub(super) fn of(entry: Entry<'a>, findings: &'a Findings<'a>) -> Self {
        let table = match entry.node.value.plain() {
            Value::Table(table) => Some(table),
            other => {
                findings.add(&entry.path, expected("a table", other));
                None
            }
        };
        Self { path: entry.path, table, findings, asked: Vec::new() }
    }

    /// The table under `key`, which may be left out.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        match self.entry(key) {
            Some(entry) => Self::of(entry, self.findings),
            None => Self { path: self.child(key), table: None, findings: self.findings, asked: Vec::new() },
        }
    }

    /// The value of `key`; `None` where it is left out or wrong.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let entry = self.entry(key)?;
        self.findings.check(&entry.path, read(entry.node))
    }

    /// As `optional`; that the key is left out is a problem.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        if self.table.is_some_and(|table| !table.contains_key(key)) {
            self.findings.add(&self.child(key), "missing");
        }
        self.optional(key, read)
    }

    /// The entries of the list under `key`, none where it is left out.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<Entry<'a>> {
        let Some(Entry { path, node }) = self.entry(key) else { return Vec::new() };
        match node.value.plain() {
            Value::List(nodes) => {
                let entry = |(index, node)| Entry { path: format!("{path}[{index}]"), node };
                nodes.iter().enumerate().map(entry).collect()
            }
            other => {
                self.findings.add(&path, expected("a list", other));
                Vec::new()
            }
        }
    }

    /// That the list or table under `key` is left out or empty is a problem.
    pub(super) fn require_entries(&self, key: &'static str) {
        let Some(table) = self.table else { return };
        let empty = match table.get(key).map(|node| &node.value) {
            None => return self.findings.add(&self.child(key), "missing"),
            Some(Value::List(entries)) => entries.is_empty(),
            Some(Value::Table(entries)) => entries.is_empty(),
            Some(_) => false,
        };
        if empty {
            self.findings.add(&self.child(key), "at least one entry is needed");
        }
    }

    /// The entries of the table under `key`, whose keys are names.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(&'a str, Entry<'a>)> {
        let table = self.section(key);
        let entries = table.table.into_iter().flatten();
        entries.map(|(name, node)| (name.as_str(), Entry { path: tree::join(&table.path, name), node })).collect()
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.into_iter().flat_map(Table::keys) {
            if !self.asked.contains(&key.as_str()) {
                self.findings.add(&self.child(key), format!("unknown key; known here: {}", self.asked.join(", ")));
            }
        }
    }

    /// The value, or its problem noted.
    pub(super) fn check<T>(&self, path: &str, result: Result<T, String>) -> Option<T> {
        self.findings.check(path, result)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the table itself could be read.
    pub(super) fn is_table(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn child(&self, key: &str) -> String {
        tree::join(&self.path, key)
    }

    fn entry(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.asked.push(key);
        self.table?.get(key).map(|node| Entry { path: self.child(key), node })
    }
}

// === readers of single values ===

pub(super) fn text(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Text(text) | Value::Unquoted(text, _) => Ok(text.clone()),
        other => Err(expected("a text", other)),
    }
}

pub(super) fn number(range: RangeInclusive<u64>) -> impl FnOnce(&Node) -> Result<u64, String> {
    move |node| {
        let Value::Integer(number) = node.value.plain() else {
            return Err(expected("a number", &node.value));
        };
        match u64::try_from(*number).ok().filter(|number| range.contains(number)) {
            Some(number) => Ok(number),
            None => Err(format!("{number} is out of range: from {} to {}", range.start(), range.end())),
        }
    }
}

pub(super) fn decimal(range: RangeInclusive<f64>) -> impl FnOnce(&Node) -> Result<f64, String> {
    move |node| {
        let number = match node.value.plain() {
            Value::Decimal(number) => *number,
            Value::Integer(number) => *number as f64,
            _ => return Err(expected("a number", &node.value)),
        };
        match range.contains(&number) {
            true => Ok(number),
            false => Err(format!("{number} is out of range: from {} to {}", range.start(), range.end())),
        }
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, String> {
    match node.value.plain() {
        Value::Boolean(value) => Ok(*value),
        _ => Err(expected("true or false", &node.value)),
    }
}

pub(super) fn bytes_in(range: RangeInclusive<u64>) -> impl FnOnce(&Node) -> Result<u64, String> {
    move |node| {
        let bytes = match node.value.plain() {
            Value::Text(text) => bytes::parse(text),
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let bytes = bytes.ok_or(bytes::EXPECTED)?;
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let [given, least, most] = [bytes, *range.start(), *range.end()].map(bytes::display);
        Err(format!("{given} is out of range: from {least} to {most}"))
    }
}

pub(super) fn duration_in(range: RangeInclusive<Duration>) -> impl FnOnce(&Node) -> Result<Duration, String> {
    move |node| {
        let length = match node.value.plain() {
            Value::Text(text) => duration::parse(text),
            _ => None,
        };
        let length = length.ok_or(duration::EXPECTED)?;
        if range.contains(&length) {
            return Ok(length);
        }
        let [given, least, most] = [length, *range.start(), *range.end()].map(duration::display);
        Err(format!("{given} is out of range: from {least} to {most}"))
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Node) -> Result<T, String> {
    move |node| {
        let given = text(node)?;
        let found = words.iter().find(|(word, _)| *word == given);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("\"{given}\" is not known here; expected {}", words.join(" or "))
        })
    }
}

pub(super) fn expected(what: &str, found: &Value) -> String {
    format!("expected {what}, found {}", found.kind())
}
