//! The file as a tree of values that each know where they were set.
//!
//! The environment is laid over this tree before anything is judged, so that
//! a value is checked in one way wherever it comes from.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

pub(super) type Table = BTreeMap<String, Node>;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Decimal(f64),
    Boolean(bool),
    /// A value that no key of ours takes; the words say what it is.
    Other(&'static str),
    List(Vec<Node>),
    Table(Table),
    /// From the environment, where a text needs no quotes: what was written,
    /// and what it is when it is not meant as a text.
    Unquoted(String, Box<Value>),
}

/// Where each key of a configuration was set.
#[derive(Debug, Clone)]
pub(super) struct Places {
    whole: Place,
    by_path: HashMap<String, Place>,
}

/// Reads a file's text. Whatever is not TOML is told with line and column.
pub(super) fn parse(file: &Path, text: &str) -> Result<Node, Vec<Problem>> {
    let lines = Lines { file: file.into(), text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Node { place: lines.whole(), value: lines.table(table.get_ref()) });
    }
    let problem = |error: &toml::de::Error| Problem {
        place: error.span().map_or(lines.whole(), |span| lines.place(span.start, true)),
        path: String::new(),
        message: error.message().to_owned(),
    };
    Err(errors.iter().map(problem).collect())
}

/// Reads a value by itself, as the right-hand side of `key = …`.
pub(super) fn parse_value(text: &str) -> Option<Value> {
    let lines = Lines { file: Path::new("").into(), text };
    DeValue::parse(text).ok().map(|value| lines.value(value.get_ref()))
}

/// `path.key`, with quotes where TOML wants them.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Byte offsets to places.
struct Lines<'a> {
    file: Arc<Path>,
    text: &'a str,
}

// === impl Lines ===

impl Lines<'_> {
    fn whole(&self) -> Place {
        Place::File { file: self.file.clone(), line: None, column: None }
    }

    fn place(&self, offset: usize, with_column: bool) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = 1 + String::from_utf8_lossy(&before[line_start..]).chars().count();
        Place::File { file: self.file.clone(), line: Some(line), column: with_column.then_some(column) }
    }

    fn node(&self, at: usize, value: &DeValue<'_>) -> Node {
        Node { place: self.place(at, false), value: self.value(value) }
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number that is too large"), Value::Integer),
            DeValue::Float(number) => {
                number.as_str().parse().map_or(Value::Other("a number with a point"), Value::Decimal)
            }
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Array(entries) => {
                Value::List(entries.iter().map(|entry| self.node(entry.span().start, entry.get_ref())).collect())
            }
            DeValue::Table(table) => self.table(table),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            (key.get_ref().to_string(), self.node(key.span().start, value.get_ref()))
        };
        Value::Table(table.iter().map(entry).collect())
    }
}

// === impl Value ===

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Decimal(_) => "a number with a point",
            Self::Boolean(_) => "true or false",
            Self::Other(kind) => kind,
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Unquoted(_, value) => value.kind(),
        }
    }

    /// The value where it is not meant as a text.
    pub(super) fn plain(&self) -> &Self {
        match self {
            Self::Unquoted(_, value) => value,
            value => value,
        }
    }
}

// === impl Places ===

impl Places {
    pub(super) fn of(root: &Node) -> Self {
        let mut places = Self { whole: root.place.clone(), by_path: HashMap::new() };
        places.add("", root);
        places
    }

    /// Where the key was set or, if it was not, the nearest table around it.
    pub(super) fn of_path(&self, mut path: &str) -> Place {
        loop {
            if let Some(place) = self.by_path.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(shorter) => path = &path[..shorter],
                None => return self.whole.clone(),
            }
        }
    }

    fn add(&mut self, path: &str, node: &Node) {
        self.by_path.insert(path.to_owned(), node.place.clone());
        match node.value.plain() {
            Value::Table(table) => table.iter().for_each(|(key, node)| self.add(&join(path, key), node)),
            Value::List(entries) => {
                entries.iter().enumerate().for_each(|(index, node)| self.add(&format!("{path}[{index}]"), node));
            }
            _ => {}
        }
    }
}
