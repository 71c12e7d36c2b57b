//! One JSON object, taken apart field by field. Every refusal names the field
//! by its path from the body's root.

use serde_json::{Map, Number, Value};

use crate::types::{Error, ErrorKind};

pub(super) struct Fields {
    /// Never holds a null: `null` says the same as leaving the field out.
    fields: Map<String, Value>,
    /// The object's own path; empty for the body itself.
    path: String,
}

/// The values that a decimal number may have.
pub(super) enum Range {
    From(f64, f64),
    /// The lower end is not part of it.
    Above(f64, f64),
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
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
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

    pub(super) fn decimal(&mut self, name: &str, range: Range) -> Result<Option<f32>, Error> {
        self.take(name).map(|value| decimal(&value, self.path_of(name), range)).transpose()
    }

    /// An integer from `least` to `most`; a `most` of `i64::MAX` is no limit.
    pub(super) fn integer(&mut self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Error> {
        self.take(name).map(|value| integer(&value, self.path_of(name), least, most)).transpose()
    }

    /// The names of the fields that nobody has taken.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The fields that nobody has taken.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.fields
    }
}

pub(super) fn decimal(value: &Value, path: String, range: Range) -> Result<f32, Error> {
    let Some(number) = value.as_f64() else { return Err(wrong_type(path, "a number", value)) };
    match range {
        Range::From(least, most) if (least..=most).contains(&number) => Ok(number as f32),
        Range::From(least, most) => Err(out_of_range(path, &format!("a number from {least} to {most}"), value)),
        // Rounding must not make the end that is left out of a number that is just above it.
        Range::Above(below, most) if below < number && number <= most => {
            Ok((number as f32).max((below as f32).next_up()))
        }
        Range::Above(below, most) => Err(out_of_range(path, &format!("a number above {below}, up to {most}"), value)),
    }
}

pub(super) fn integer(value: &Value, path: String, least: i64, most: i64) -> Result<i64, Error> {
    let expected = || match most {
        i64::MAX => format!("an integer of at least {least}"),
        most => format!("an integer from {least} to {most}"),
    };
    let number = match value {
        Value::Number(number) if !number.is_f64() => number,
        other => return Err(wrong_type(path, "an integer", other)),
    };
    // Beyond the type's end is beyond every limit, and no different where there is none.
    match number.as_i64().or(number.as_u64().map(|_| i64::MAX)) {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(out_of_range(path, &expected(), value)),
    }
}

pub(super) fn missing(path: String) -> Error {
    let message = format!("you must provide a {path} parameter");
    Error::invalid(path, message)
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

fn out_of_range(path: String, expected: &str, got: &Value) -> Error {
    let message = format!("Invalid '{path}': expected {expected}, but got {got} instead.");
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
