//! What the environment changes: `TENANTRY_<SECTION>__<KEY>=value`.
//!
//! Names of variables have no case and few characters, so a segment matches a
//! key that has the same letters and digits: `TENANTRY_BASES__SMOLLM2_135M__PATH`
//! sets `bases.smollm2-135m.path`. A list is indexed by number, counted from
//! zero. A value is read as in the file; a text needs no quotes.
//!
//! Variables without a double underscore are not ours to judge: Kubernetes
//! sets `TENANTRY_PORT` for a service of that name.

use std::ffi::OsString;

use super::problem::{Place, Problem};
use super::tree::{self, Node, Table, Value};

const PREFIX: &str = "TENANTRY_";

/// Lays the variables over the file's tree.
pub(super) fn overlay(root: &mut Node, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Problem> {
    let mut overrides: Vec<Override> = variables.into_iter().filter_map(Override::of).collect();
    // Lists grow at their end, so 2 must be set before 10.
    overrides.sort_by_cached_key(Override::order);
    overrides.iter().filter_map(|it| it.apply(root).err().map(|message| it.problem(message))).collect()
}

struct Override {
    variable: String,
    segments: Vec<String>,
    /// `None` where it is not Unicode.
    text: Option<String>,
}

// === impl Override ===

impl Override {
    fn of((name, value): (OsString, OsString)) -> Option<Self> {
        let variable = name.into_string().ok()?;
        let keys = variable.strip_prefix(PREFIX)?;
        if !keys.contains("__") {
            return None;
        }
        let segments = keys.split("__").map(str::to_ascii_lowercase).collect();
        Some(Self { segments, variable, text: value.into_string().ok() })
    }

    fn order(&self) -> Vec<(Option<usize>, String)> {
        self.segments.iter().map(|segment| (segment.parse().ok(), segment.clone())).collect()
    }

    fn problem(&self, message: String) -> Problem {
        Problem { place: Place::Variable(self.variable.clone()), path: String::new(), message }
    }

    fn apply(&self, root: &mut Node) -> Result<(), String> {
        let text = self.text.as_ref().ok_or("its value is not UTF-8")?;
        let mut node = root;
        for (index, segment) in self.segments.iter().enumerate() {
            node = self.step(node, segment, self.segments.get(index + 1))?;
        }
        node.place = Place::Variable(self.variable.clone());
        node.value = match tree::parse_value(text) {
            Some(value @ (Value::Text(_) | Value::List(_) | Value::Table(_))) => value,
            Some(value) => Value::Unquoted(text.clone(), Box::new(value)),
            None => Value::Text(text.clone()),
        };
        Ok(())
    }

    /// The node that `segment` names in `node`; made where there is none, as
    /// what the segment after it can be looked up in.
    fn step<'a>(&self, node: &'a mut Node, segment: &str, after: Option<&String>) -> Result<&'a mut Node, String> {
        let empty = || {
            let is_list = after.is_some_and(|after| after.parse::<usize>().is_ok());
            let value = if is_list { Value::List(Vec::new()) } else { Value::Table(Table::new()) };
            Node { place: Place::Variable(self.variable.clone()), value }
        };
        match &mut node.value {
            Value::Table(table) => {
                let mut matching = table.keys().filter(|key| same(key, segment));
                let key = matching.next().cloned();
                if let Some(other) = matching.next() {
                    return Err(format!("`{segment}` may be `{}` or `{other}`", key.unwrap_or_default()));
                }
                Ok(table.entry(key.unwrap_or_else(|| segment.to_owned())).or_insert_with(empty))
            }
            Value::List(entries) => {
                let length = entries.len();
                let index: usize =
                    segment.parse().map_err(|_| format!("`{segment}` is not an entry's number in a list"))?;
                if index == length {
                    entries.push(empty());
                }
                entries.get_mut(index).ok_or_else(|| format!("the list has {length} entries, none at {index}"))
            }
            other => Err(format!("there is no `{segment}` in {}", other.kind())),
        }
    }
}

/// Whether a variable's segment means the key.
fn same(key: &str, segment: &str) -> bool {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    key.chars().map(plain).eq(segment.chars().map(plain))
}
