//! The body of `/v1/moderations`.

use serde_json::Value;

use super::fields::{Fields, wrong_type};
use crate::edge::limits;
use crate::edge::refusal::{missing, quoted};
use crate::types::Error;

/// What is to be judged.
#[derive(Debug, PartialEq)]
pub(in crate::edge::http) struct Moderated {
    /// At least one.
    pub texts: Vec<String>,
    pub model: Option<String>,
}

/// A text, texts, or the parts of one: what stands in an array of objects is judged
/// as one text.
pub(in crate::edge::http) fn moderated(body: &[u8]) -> Result<Moderated, Error> {
    let mut fields = Fields::of_body(body)?;
    let model = fields.string("model")?;
    let path = fields.path_of("input");
    let texts = match fields.take("input") {
        None => return Err(missing(path)),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(entries)) if entries.first().is_some_and(Value::is_object) => vec![parts(entries, &path)?],
        Some(Value::Array(entries)) => {
            limits::moderated("input", entries.len())?;
            let text = |(at, entry)| match entry {
                Value::String(text) => Ok(text),
                other => Err(wrong_type(format!("{path}[{at}]"), "a string", &other)),
            };
            entries.into_iter().enumerate().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong_type(path, "a string or an array", &other)),
    };
    if let Some((name, _)) = fields.left().next() {
        return Err(super::fields::unsupported(fields.path_of(name)));
    }
    Ok(Moderated { texts, model })
}

fn parts(entries: Vec<Value>, path: &str) -> Result<String, Error> {
    let mut texts = Vec::with_capacity(entries.len());
    for (at, entry) in entries.into_iter().enumerate() {
        let mut part = Fields::of_value(entry, format!("{path}[{at}]"))?;
        let kind_path = part.path_of("type");
        let kind = part.string("type")?.ok_or_else(|| missing(kind_path.clone()))?;
        if kind != "text" {
            let message = format!("Unsupported input '{}' in '{kind_path}': only 'text' is judged.", quoted(&kind));
            return Err(Error::invalid(kind_path, message));
        }
        texts.push(part.string("text")?.ok_or_else(|| missing(part.path_of("text")))?);
        if let Some((name, _)) = part.left().next() {
            return Err(super::fields::unsupported(part.path_of(name)));
        }
    }
    Ok(texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_texts_or_parts_of_one_are_taken() {
        let read = |body: &str| moderated(body.as_bytes()).expect("valid");
        let of = |texts: &[&str], model: Option<&str>| Moderated {
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
            model: model.map(str::to_owned),
        };
        assert_eq!(read(r#"{"input":"a"}"#), of(&["a"], None));
        assert_eq!(read(r#"{"input":["a",""],"model":"m"}"#), of(&["a", ""], Some("m")));
        let parts = r#"{"input":[{"type":"text","text":"you st"},{"type":"text","text":"upid"}]}"#;
        assert_eq!(read(parts), of(&["you st\nupid"], None));
    }

    #[test]
    fn what_cannot_be_judged_is_refused_with_its_path() {
        for (body, param) in [
            (r#"{}"#, "input"),
            (r#"{"input":[]}"#, "input"),
            (r#"{"input":7}"#, "input"),
            (r#"{"input":["a",7]}"#, "input[1]"),
            (r#"{"input":[{"type":"image_url","image_url":{"url":"data:"}}]}"#, "input[0].type"),
            (r#"{"input":[{"type":"text"}]}"#, "input[0].text"),
            (r#"{"input":[{"type":"text","text":"a","language":"en"}]}"#, "input[0].language"),
            (r#"{"input":"a","inputs":"b"}"#, "inputs"),
        ] {
            let error = moderated(body.as_bytes()).expect_err(body);
            assert_eq!(error.param(), Some(param), "{body}");
        }
        let many = serde_json::json!({ "input": vec!["a"; 257] }).to_string();
        assert!(moderated(many.as_bytes()).is_err());
    }
}
