//! How tokens are drawn and when an answer ends: the fields that both
//! endpoints share, by OpenAI's names and, beyond those, vLLM's.

use serde_json::Value;

use super::fields::{Fields, Range, decimal, wrong_type};
use crate::types::{Error, Sampling};

const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 256;

pub(super) fn take(fields: &mut Fields) -> Result<Sampling, Error> {
    let default = Sampling::default();
    Ok(Sampling {
        temperature: fields.decimal("temperature", Range::From(0.0, 2.0))?.unwrap_or(default.temperature),
        top_p: fields.decimal("top_p", Range::Above(0.0, 1.0))?.unwrap_or(default.top_p),
        // -1 is vLLM's word for "all", as 0 is ours.
        top_k: fields
            .integer("top_k", -1, u32::MAX.into())?
            .map_or(default.top_k, |top_k| u32::try_from(top_k).unwrap_or(0)),
        min_p: fields.decimal("min_p", Range::From(0.0, 1.0))?.unwrap_or(default.min_p),
        repetition_penalty: fields
            .decimal("repetition_penalty", Range::Above(0.0, 2.0))?
            .unwrap_or(default.repetition_penalty),
        presence_penalty: fields
            .decimal("presence_penalty", Range::From(-2.0, 2.0))?
            .unwrap_or(default.presence_penalty),
        frequency_penalty: fields
            .decimal("frequency_penalty", Range::From(-2.0, 2.0))?
            .unwrap_or(default.frequency_penalty),
        seed: seed(fields)?,
        logit_bias: logit_bias(fields)?,
    })
}

/// Any integer of 64 bits, with a sign or without.
fn seed(fields: &mut Fields) -> Result<Option<u64>, Error> {
    let Some(value) = fields.take("seed") else { return Ok(None) };
    match value.as_i64().map(i64::cast_unsigned).or(value.as_u64()) {
        Some(seed) => Ok(Some(seed)),
        None => Err(wrong_type(fields.path_of("seed"), "an integer of 64 bits", &value)),
    }
}

pub(super) fn stop(fields: &mut Fields) -> Result<Vec<String>, Error> {
    let path = fields.path_of("stop");
    let stops = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![checked_stop(text, path)?]),
        Some(Value::Array(stops)) => stops,
        Some(other) => return Err(wrong_type(path, "a string or an array of strings", &other)),
    };
    if stops.len() > MOST_STOPS {
        let message = format!("Invalid '{path}': expected at most {MOST_STOPS} strings, but got {}.", stops.len());
        return Err(Error::invalid(path, message));
    }
    stops
        .into_iter()
        .enumerate()
        .map(|(index, value)| match value {
            Value::String(text) => checked_stop(text, format!("{path}[{index}]")),
            other => Err(wrong_type(format!("{path}[{index}]"), "a string", &other)),
        })
        .collect()
}

fn checked_stop(text: String, path: String) -> Result<String, Error> {
    if (1..=LONGEST_STOP).contains(&text.len()) {
        return Ok(text);
    }
    let message =
        format!("Invalid '{path}': expected a string of 1 to {LONGEST_STOP} bytes, but got {} bytes.", text.len());
    Err(Error::invalid(path, message))
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, Error> {
    let path = fields.path_of("logit_bias");
    let biases = match fields.take("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(biases)) => biases,
        Some(other) => return Err(wrong_type(path, "an object", &other)),
    };
    let bias = |(token, bias): (&String, &Value)| {
        let path = format!("{path}.{token}");
        let Ok(token) = token.parse() else {
            let message = format!("Invalid key in 'logit_bias': '{token}' is not a token id.");
            return Err(Error::invalid("logit_bias", message));
        };
        Ok((token, decimal(bias, path, Range::From(-100.0, 100.0))?))
    };
    biases.iter().map(bias).collect()
}
