//! The prompts of a completion: a text, several texts, a list of token ids, or
//! several such lists.

use serde_json::Value;

use super::fields::{Fields, empty_array, integer, wrong_type};
use crate::edge::refusal::missing;
use crate::types::{Error, Prompt};

const EXPECTED: &str = "a string, an array of strings, an array of integers or an array of such arrays";

pub(super) fn take(fields: &mut Fields) -> Result<Vec<Prompt>, Error> {
    let path = fields.path_of("prompt");
    let elements = match fields.take("prompt") {
        None => return Err(missing(path)),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(elements)) => elements,
        Some(other) => return Err(wrong_type(path, EXPECTED, &other)),
    };
    // The first element says what the others have to be.
    match elements.first() {
        None => Err(empty_array(path)),
        Some(Value::Number(_)) => Ok(vec![tokens(&elements, &path)?]),
        Some(_) => elements
            .into_iter()
            .enumerate()
            .map(|(index, element)| one_of_many(element, format!("{path}[{index}]")))
            .collect(),
    }
}

fn one_of_many(element: Value, path: String) -> Result<Prompt, Error> {
    match element {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(ids) if ids.is_empty() => Err(empty_array(path)),
        Value::Array(ids) => tokens(&ids, &path),
        other => Err(wrong_type(path, "a string or an array of integers", &other)),
    }
}

fn tokens(ids: &[Value], path: &str) -> Result<Prompt, Error> {
    let token = |(index, id)| {
        integer(id, format!("{path}[{index}]"), &(0..=u32::MAX.into()))
            .map(|id| u32::try_from(id).expect("the range was checked"))
    };
    ids.iter().enumerate().map(token).collect::<Result<_, _>>().map(Prompt::Tokens)
}
