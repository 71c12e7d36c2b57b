//! The messages of a chat. One that says more than a role and a text is kept
//! as it came, for a worker that understands it, together with the refusal of
//! a worker that does not: a template would leave it out in silence. `name`
//! alone may be left out.

use serde_json::{Map, Value};

use super::fields::{Fields, empty_array, unsupported, wrong_type};
use crate::edge::refusal::{missing, quoted, unknown_role};
use crate::types::{Error, Message, More, Role};

pub(super) fn take(fields: &mut Fields) -> Result<Vec<Message>, Error> {
    let path = fields.path_of("messages");
    let messages = match fields.take("messages") {
        None => return Err(missing(path)),
        Some(Value::Array(messages)) => messages,
        Some(other) => return Err(wrong_type(path, "an array of objects", &other)),
    };
    if messages.is_empty() {
        return Err(empty_array(path));
    }
    messages.into_iter().enumerate().map(|(index, value)| message(value, format!("{path}[{index}]"))).collect()
}

fn message(value: Value, path: String) -> Result<Message, Error> {
    let as_given = more_than_a_text(&value).then(|| value.clone());
    let mut fields = Fields::of_value(value, path)?;
    let role = role(&mut fields)?;
    let path = fields.path_of("content");
    let (content, odd_part) = match fields.take("content") {
        // An assistant that only called tools had nothing to say.
        None if role == Role::Assistant => (String::new(), None),
        None => return Err(missing(path)),
        Some(Value::String(text)) => (text, None),
        Some(Value::Array(parts)) => text_of(parts, &path)?,
        Some(other) => return Err(wrong_type(path, "a string or an array of content parts", &other)),
    };
    fields.string("name")?;
    let refusal = odd_part.or_else(|| something_more(&fields));
    let more = match as_given {
        Some(Value::Object(as_given)) => Some(Box::new(More { as_given, refusal })),
        _ => None,
    };
    Ok(Message { role, content, more })
}

/// Whether the message has more fields than a role and a content, or more in
/// its content than texts.
fn more_than_a_text(message: &Value) -> bool {
    let plain_part =
        |part: &Value| part["type"] == "text" && part.as_object().is_some_and(|part| only(part, &["type", "text"]));
    let plain = |message: &Map<String, Value>| {
        let parts = message.get("content").and_then(Value::as_array);
        only(message, &["role", "content"]) && parts.is_none_or(|parts| parts.iter().all(plain_part))
    };
    message.as_object().is_some_and(|message| !plain(message))
}

/// Whether nothing is said under other names.
fn only(object: &Map<String, Value>, names: &[&str]) -> bool {
    object.iter().all(|(name, value)| names.contains(&name.as_str()) || !says_something(value))
}

/// Clients send an answer back as they got it, its empty fields included.
fn says_something(value: &Value) -> bool {
    !value.is_null() && !matches!(value, Value::Array(empty) if empty.is_empty())
}

/// The refusal of the first field that is left and says something.
fn something_more(fields: &Fields) -> Option<Error> {
    let (name, _) = fields.left().find(|(_, value)| says_something(value))?;
    Some(unsupported(fields.path_of(name)))
}

fn role(fields: &mut Fields) -> Result<Role, Error> {
    let path = fields.path_of("role");
    let text = fields.string("role")?.ok_or_else(|| missing(path.clone()))?;
    Role::parse(&text).ok_or_else(|| unknown_role(path, &text))
}

/// The text of content parts, one after another; and the refusal of the first
/// that is more than a text.
fn text_of(parts: Vec<Value>, path: &str) -> Result<(String, Option<Error>), Error> {
    if parts.is_empty() {
        return Err(empty_array(path.to_owned()));
    }
    let (mut content, mut odd) = (String::new(), None);
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of_value(part, format!("{path}[{index}]"))?;
        let kind_path = part.path_of("type");
        let kind = part.string("type")?.ok_or_else(|| missing(kind_path.clone()))?;
        if kind != "text" {
            let message =
                format!("Unsupported content part '{}' in '{kind_path}': only 'text' is supported.", quoted(&kind));
            odd = odd.or(Some(Error::invalid(kind_path, message)));
            continue;
        }
        let text = part.string("text")?.ok_or_else(|| missing(part.path_of("text")))?;
        odd = odd.or_else(|| something_more(&part));
        content.push_str(&text);
    }
    Ok((content, odd))
}
