//! One JSON object, taken apart field by field. Every refusal names the field
//! by its path from the body's root.

use std::ops::RangeInclusive;

use serde_json::{Map, Number, Value};

use crate::edge::limits::{self, Decimals};
use crate::edge::refusal::quoted;
use crate::types::{Error, ErrorKind};

pub(super) struct Fields {
    /// Never holds a null: `null` says the same as leaving the field out.
    fields: Map<String, Value>,
    /// The object's own path; empty for the body itself.
    path: String,
}

// === impl Fields ===

impl Fields {
    pub(super) fn of_body(body: &[u8]) -> Result<Self, Error> {
        if body.trim_ascii().is_empty() {
            return Err(malformed("it is empty."));
        }
        let text = std::str::from_utf8(body)
            .map_err(|error| malformed(&format!("it is not valid UTF-8 at byte {}.", error.valid_up_to())))?;
        let value: Value = serde_json::from_str(text).map_err(|error| malformed(&format!("{error}.")))?;
        match value {
            Value::Object(fields) => Ok(Self::new(fields, String::new())),
            other => Err(malformed(&format!("expected an object, but got {} instead.", described(&other)))),
        }
    }

    /// The object that is the value of `path`.
    pub(super) fn of_value(value: Value, path: String) -> Result<Self, Error> {
        match value {
            Value::Object(fields) => Ok(Self::new(fields, path)),
            other => Err(wrong_type(path, "an object", &other)),
        }
    }

    fn new(mut fields: Map<String, Value>, path: String) -> Self {
        fields.retain(|_, value| !value.is_null());
        Self { fields, path }
    }

    /// The path of this object's field `name`.
    pub(super) fn path_of(&self, name: &str) -> String {
        let name = quoted(name);
        if self.path.is_empty() { name.into_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name)
    }

    /// Drops the field where its value makes no difference.
    pub(super) fn drop_if(&mut self, name: &str, harmless: impl FnOnce(&Value) -> bool) {
        if self.fields.get(name).is_some_and(harmless) {
            self.fields.remove(name);
        }
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(self.path_of(name), "a string", &other)),
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(yes)) => Ok(Some(yes)),
            Some(other) => Err(wrong_type(self.path_of(name), "a boolean", &other)),
        }
    }

    pub(super) fn decimal(&mut self, name: &str, range: Decimals) -> Result<Option<f32>, Error> {
        self.take(name).map(|value| decimal(&value, self.path_of(name), range)).transpose()
    }

    pub(super) fn integer(&mut self, name: &str, range: &RangeInclusive<i64>) -> Result<Option<i64>, Error> {
        self.take(name).map(|value| integer(&value, self.path_of(name), range)).transpose()
    }

    /// The names of the fields that nobody has taken.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The fields that nobody has taken. A name too long to be repeated is
    /// nobody's, and is refused here.
    pub(super) fn rest(self) -> Result<Map<String, Value>, Error> {
        match self.fields.keys().find(|name| quoted(name) != name.as_str()) {
            Some(name) => Err(unsupported(self.path_of(name))),
            None => Ok(self.fields),
        }
    }
}

pub(super) fn decimal(value: &Value, path: String, range: Decimals) -> Result<f32, Error> {
    match value.as_f64() {
        Some(number) => limits::decimal(path, number, value, range),
        None => Err(wrong_type(path, "a number", value)),
    }
}

pub(super) fn integer(value: &Value, path: String, range: &RangeInclusive<i64>) -> Result<i64, Error> {
    let whole = match value {
        Value::Number(number) => number.as_i128(),
        _ => None,
    };
    match whole {
        Some(whole) => limits::integer(path, whole, range),
        None => Err(wrong_type(path, "an integer", value)),
    }
}

pub(super) fn unsupported(path: String) -> Error {
    let message = format!("Unsupported parameter: '{path}' is not supported.");
    Error::invalid(path, message)
}

pub(super) fn empty_array(path: String) -> Error {
    let message = format!("Invalid '{path}': expected at least one element, but got an empty array instead.");
    Error::invalid(path, message)
}

pub(super) fn wrong_type(path: String, expected: &str, got: &Value) -> Error {
    let message = format!("Invalid type for '{path}': expected {expected}, but got {} instead.", described(got));
    Error::invalid(path, message)
}

fn malformed(why: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("We could not parse the JSON body of your request: {why}"))
}

/// A value's type in words, never the value itself.
fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if Number::is_f64(number) => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
