//! Fields that a worker said and that have no place in our vocabulary, put
//! together from a stream's pieces for an answer that is sent in one.

use serde_json::{Map, Value};

/// What an answer's message says itself.
const OURS: [&str; 3] = ["role", "content", "annotations"];

/// Adds a piece of a message: texts are continued, tool calls are continued by
/// their `index`, anything else is the last that was said.
pub(super) fn add_delta(message: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (name, value) in delta.into_iter().filter(|(name, _)| !OURS.contains(&name.as_str())) {
        match (message.get_mut(&name), value) {
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (_, Value::Array(pieces)) if name == "tool_calls" => {
                let calls = message.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(calls) = calls {
                    pieces.into_iter().for_each(|piece| add_tool_call(calls, piece));
                }
            }
            (_, value) => drop(message.insert(name, value)),
        }
    }
}

pub(super) fn add_fields(all: &mut Map<String, Value>, more: Map<String, Value>) {
    all.extend(more);
}

/// A piece continues the call of its `index`, or begins it. Its place in the
/// list tells it afterwards; OpenAI's whole answers have no `index` in a call.
fn add_tool_call(calls: &mut Vec<Value>, mut piece: Value) {
    let Some(fields) = piece.as_object_mut() else { return };
    let index = fields.remove("index").and_then(|index| index.as_u64()).map_or(calls.len(), |index| index as usize);
    let Some(call) = calls.get_mut(index) else { return calls.push(piece) };
    if let (Some(call), Value::Object(piece)) = (call.as_object_mut(), piece) {
        for (name, value) in piece {
            match (call.get_mut(&name), value) {
                // Arguments come in pieces; a name or an id comes once, and some workers repeat it.
                (Some(Value::Object(function)), Value::Object(piece)) => add_function(function, piece),
                (_, value) => drop(call.insert(name, value)),
            }
        }
    }
}

fn add_function(function: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (name, value) in piece {
        match (function.get_mut(&name), value) {
            (Some(Value::String(arguments)), Value::String(more)) if name == "arguments" => arguments.push_str(&more),
            (_, Value::Null) => {}
            (_, value) => drop(function.insert(name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gathered(deltas: Value) -> Value {
        let mut message = Map::new();
        for delta in deltas.as_array().expect("a list") {
            add_delta(&mut message, delta.as_object().expect("an object").clone());
        }
        Value::Object(message)
    }

    #[test]
    fn tool_calls_are_put_together_by_their_index() {
        let whole = gathered(json!([
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "{\"x\":"}}]},
            {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
            {"tool_calls": [{"index": 0, "function": {"name": null, "arguments": "1}"}}]},
        ]));
        assert_eq!(
            whole,
            json!({"tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]})
        );
    }

    #[test]
    fn texts_are_continued_and_our_own_fields_are_not_overwritten() {
        let whole = gathered(json!([
            {"reasoning_content": "First ", "role": "robot"}, {"reasoning_content": "this.", "content": "?"},
        ]));
        assert_eq!(whole, json!({"reasoning_content": "First this."}));
    }
}
