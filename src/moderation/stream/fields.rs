//! The texts of what a worker adds to a delta.

use serde_json::{Map, Value};

/// Fields that name things, which this server or the worker's has made up.
const NAMES: [&str; 4] = ["id", "index", "role", "type"];
/// What a field's path ends with whose text is JSON.
pub(super) const JSON: &str = ".arguments";

/// Every text with the channel that it belongs to: its field's path, with the number
/// of the tool call. Always in the same order.
pub(super) fn visit(fields: &mut Map<String, Value>, seen: &mut dyn FnMut(&str, &mut String)) {
    walk(fields, "", seen);
}

fn walk(fields: &mut Map<String, Value>, path: &str, seen: &mut dyn FnMut(&str, &mut String)) {
    for (name, value) in fields.iter_mut().filter(|(name, _)| !NAMES.contains(&name.as_str())) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::String(text) if !text.is_empty() => seen(&path, text),
            Value::Object(fields) => walk(fields, &path, seen),
            Value::Array(entries) => {
                for (at, entry) in entries.iter_mut().enumerate() {
                    let number = entry.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
                    let path = format!("{path}[{number}]");
                    match entry {
                        Value::Object(fields) => walk(fields, &path, seen),
                        Value::String(text) if !text.is_empty() => seen(&path, text),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(fields) = value else { panic!("an object") };
        fields
    }

    #[test]
    fn every_text_has_its_channel_and_ids_have_none() {
        let mut fields = object(json!({
            "reasoning_content": "so",
            "tool_calls": [
                { "index": 3, "id": "call_1", "type": "function", "function": { "name": "say", "arguments": "{\"a\"" } },
                { "index": 3, "function": { "arguments": ": 1}" } },
            ],
            "annotations": ["x", { "note": "y" }],
            "empty": "",
        }));
        let mut found = Vec::new();
        visit(&mut fields, &mut |path, text| found.push((path.to_owned(), text.clone())));
        let expected = [
            ("reasoning_content", "so"),
            ("tool_calls[3].function.name", "say"),
            ("tool_calls[3].function.arguments", "{\"a\""),
            ("tool_calls[3].function.arguments", ": 1}"),
            ("annotations[0]", "x"),
            ("annotations[1].note", "y"),
        ];
        let mut found: Vec<(&str, &str)> = found.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
