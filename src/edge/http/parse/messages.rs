//! The messages of a chat. What a message or a part of its content holds
//! beyond its role and its text is refused by name, since a template would
//! leave it out in silence. `name` alone is accepted, and not passed to
//! templates.

use serde_json::Value;

use super::fields::{Fields, empty_array, unsupported, wrong_type};
use crate::edge::refusal::{missing, quoted, unknown_role};
use crate::types::{Error, Message, Role};

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
    messages
        .into_iter()
        .enumerate()
        .map(|(index, value)| Fields::of_value(value, format!("{path}[{index}]")).and_then(message))
        .collect()
}

fn message(mut fields: Fields) -> Result<Message, Error> {
    let role = role(&mut fields)?;
    let path = fields.path_of("content");
    let content = match fields.take("content") {
        // An assistant that only called tools had nothing to say.
        None if role == Role::Assistant => String::new(),
        None => return Err(missing(path)),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => text_of(parts, &path)?,
        Some(other) => return Err(wrong_type(path, "a string or an array of content parts", &other)),
    };
    fields.string("name")?;
    nothing_more(&fields)?;
    Ok(Message { role, content })
}

fn nothing_more(fields: &Fields) -> Result<(), Error> {
    // Clients send an answer back as they got it, its empty fields included.
    let says_more = |value: &Value| !matches!(value, Value::Array(empty) if empty.is_empty());
    match fields.left().find(|(_, value)| says_more(value)) {
        Some((name, _)) => Err(unsupported(fields.path_of(name))),
        None => Ok(()),
    }
}

fn role(fields: &mut Fields) -> Result<Role, Error> {
    let path = fields.path_of("role");
    let text = fields.string("role")?.ok_or_else(|| missing(path.clone()))?;
    Role::parse(&text).ok_or_else(|| unknown_role(path, &text))
}

/// The text of content parts, one after another.
fn text_of(parts: Vec<Value>, path: &str) -> Result<String, Error> {
    if parts.is_empty() {
        return Err(empty_array(path.to_owned()));
    }
    let mut content = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of_value(part, format!("{path}[{index}]"))?;
        let kind_path = part.path_of("type");
        let kind = part.string("type")?.ok_or_else(|| missing(kind_path.clone()))?;
        if kind != "text" {
            let message =
                format!("Unsupported content part '{}' in '{kind_path}': only 'text' is supported.", quoted(&kind));
            return Err(Error::invalid(kind_path, message));
        }
        let text = part.string("text")?.ok_or_else(|| missing(part.path_of("text")))?;
        nothing_more(&part)?;
        content.push_str(&text);
    }
    Ok(content)
}
