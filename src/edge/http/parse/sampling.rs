//! How tokens are drawn and when an answer ends: the fields that both
//! endpoints share, by OpenAI's names and, beyond those, vLLM's.

use serde_json::Value;

use super::fields::{Fields, decimal, wrong_type};
use crate::edge::limits;
use crate::edge::refusal::quoted;
use crate::types::{Error, Sampling};

pub(super) fn take(fields: &mut Fields) -> Result<Sampling, Error> {
    let default = Sampling::default();
    Ok(Sampling {
        temperature: fields.decimal("temperature", limits::TEMPERATURE)?.unwrap_or(default.temperature),
        top_p: fields.decimal("top_p", limits::TOP_P)?.unwrap_or(default.top_p),
        // -1 is vLLM's word for "all", as 0 is ours.
        top_k: fields
            .integer("top_k", &(-1..=u32::MAX.into()))?
            .map_or(default.top_k, |top_k| u32::try_from(top_k).unwrap_or(0)),
        min_p: fields.decimal("min_p", limits::MIN_P)?.unwrap_or(default.min_p),
        repetition_penalty: fields
            .decimal("repetition_penalty", limits::REPETITION_PENALTY)?
            .unwrap_or(default.repetition_penalty),
        presence_penalty: fields
            .decimal("presence_penalty", limits::PRESENCE_PENALTY)?
            .unwrap_or(default.presence_penalty),
        frequency_penalty: fields
            .decimal("frequency_penalty", limits::FREQUENCY_PENALTY)?
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
        Some(Value::String(text)) => return Ok(vec![limits::stop(path, text)?]),
        Some(Value::Array(stops)) => stops,
        Some(other) => return Err(wrong_type(path, "a string or an array of strings", &other)),
    };
    limits::stop_count(stops.len())?;
    stops
        .into_iter()
        .enumerate()
        .map(|(index, value)| match value {
            Value::String(text) => limits::stop(format!("{path}[{index}]"), text),
            other => Err(wrong_type(format!("{path}[{index}]"), "a string", &other)),
        })
        .collect()
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, Error> {
    let path = fields.path_of("logit_bias");
    let biases = match fields.take("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(biases)) => biases,
        Some(other) => return Err(wrong_type(path, "an object", &other)),
    };
    limits::logit_bias_count(biases.len())?;
    let bias = |(key, bias): (&String, &Value)| {
        let Some(token) = token_id(key) else {
            let message = format!("Invalid key in 'logit_bias': '{}' is not a token id.", quoted(key));
            return Err(Error::invalid("logit_bias", message));
        };
        Ok((token, decimal(bias, format!("{path}.{token}"), limits::LOGIT_BIAS)?))
    };
    biases.iter().map(bias).collect()
}

/// A token's id in the one way to write it: two keys shall not mean one token.
fn token_id(key: &str) -> Option<u32> {
    key.parse().ok().filter(|id: &u32| id.to_string() == key)
}
