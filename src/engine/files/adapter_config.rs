//! Reads PEFT's adapter_config.json: what is used, and what is refused because serving it would give other answers
//! than training promised.

use serde_json::{Map, Value};

use super::adapter::LoraModule;
use super::adapter_error::AdapterError;
use super::error::quoted;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterLimits {
    pub max_rank: usize,
    /// Of the weights file.
    pub max_bytes: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    pub rank: usize,
    /// What the product of A and B is multiplied by: alpha / r, or alpha / √r for rank-stabilised LoRA.
    pub scale: f32,
    /// As written by PEFT; a hub name, a path of the training machine, or nothing.
    pub base_model: Option<String>,
    pub(crate) targets: Targets,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Targets {
    /// Names or path endings; the tensors must match them exactly.
    Listed(Vec<String>),
    /// A pattern or `all-linear`: the tensors say what was meant.
    AsInTensors,
}

pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Present and true, each changes the computation.
const FLAGS: [&str; 5] = ["use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "use_bdlora"];

/// Present and not empty, each changes the computation or adds weights that are not LoRA's.
const PARTS: [&str; 11] = [
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "layers_pattern",
    "megatron_config",
];

impl AdapterConfig {
    pub(crate) fn parse(json: &[u8], base_names: &[&str], limits: AdapterLimits) -> Result<Self, AdapterError> {
        let document: Value = serde_json::from_slice(json)
            .map_err(|error| AdapterError::Config(format!("is not valid JSON: {error}")))?;
        let Value::Object(fields) = document else {
            return Err(AdapterError::Config("is not a JSON object".to_owned()));
        };
        refuse_unsupported(&fields)?;
        let rank = rank(&fields, limits)?;
        let scale = scale(&fields, rank)?;
        let targets = targets(&fields)?;
        let base_model = match fields.get("base_model_name_or_path") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()).filter(|name| !name.is_empty()),
            Some(_) => return Err(AdapterError::Config("`base_model_name_or_path` is not a text".to_owned())),
        };
        if let Some(name) = &base_model {
            check_base(name, base_names)?;
        }
        Ok(Self { rank, scale, base_model, targets })
    }
}

fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), AdapterError> {
    let refuse = |what: String| Err(AdapterError::Unsupported(what));
    match fields.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => return refuse(format!("`peft_type` {}", quoted(other))),
        None => return Err(AdapterError::Config("`peft_type` is missing".to_owned())),
    }
    if let Some(task) = fields.get("task_type").and_then(Value::as_str).filter(|task| *task != "CAUSAL_LM") {
        return refuse(format!("`task_type` {}", quoted(task)));
    }
    if let Some(bias) = fields.get("bias").and_then(Value::as_str).filter(|bias| *bias != "none") {
        return refuse(format!("`bias` {}", quoted(bias)));
    }
    for flag in FLAGS {
        if fields.get(flag).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false))) {
            return refuse(format!("`{flag}`"));
        }
    }
    for part in PARTS {
        if fields.get(part).is_some_and(|value| !is_empty(value)) {
            return refuse(format!("`{part}`"));
        }
    }
    // A variant that PEFT gained after this was written is a switch called `use_…`, and may mean anything.
    let new_switch = |(name, value): &(&String, &Value)| {
        name.starts_with("use_") && *name != "use_rslora" && **value == Value::Bool(true)
    };
    if let Some((name, _)) = fields.iter().find(new_switch) {
        return refuse(format!("`{}`", quoted(name)));
    }
    // These start from a changed base model, which PEFT changes again when it loads them. Ours stays as it is.
    if let Some(start) = fields.get("init_lora_weights").and_then(Value::as_str) {
        let changes_base =
            ["pissa", "olora", "corda", "loftq"].iter().any(|name| start.to_lowercase().starts_with(name));
        if changes_base {
            return refuse(format!("`init_lora_weights` {}", quoted(start)));
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn rank(fields: &Map<String, Value>, limits: AdapterLimits) -> Result<usize, AdapterError> {
    let shown = fields.get("r").unwrap_or(&Value::Null);
    match shown.as_u64() {
        None => Err(AdapterError::Config(format!("`r` is {}, not a rank", quoted(&shown.to_string())))),
        Some(0) => Err(AdapterError::Config("`r` is 0".to_owned())),
        Some(rank) if rank > limits.max_rank as u64 => {
            Err(AdapterError::Config(format!("`r` is {rank}, at most {} is allowed", limits.max_rank)))
        }
        Some(rank) => Ok(rank as usize),
    }
}

fn scale(fields: &Map<String, Value>, rank: usize) -> Result<f32, AdapterError> {
    let shown = fields.get("lora_alpha").unwrap_or(&Value::Null);
    let alpha = shown.as_f64().filter(|alpha| *alpha > 0.0 && *alpha <= 1e6);
    let Some(alpha) = alpha else {
        let shown = quoted(&shown.to_string());
        return Err(AdapterError::Config(format!("`lora_alpha` is {shown}, not a number above 0 and up to 1000000")));
    };
    let divisor = match fields.get("use_rslora") {
        None | Some(Value::Null | Value::Bool(false)) => rank as f64,
        Some(Value::Bool(true)) => (rank as f64).sqrt(),
        Some(_) => return Err(AdapterError::Config("`use_rslora` is neither true nor false".to_owned())),
    };
    Ok((alpha / divisor) as f32)
}

fn targets(fields: &Map<String, Value>) -> Result<Targets, AdapterError> {
    let listed = match fields.get("target_modules") {
        // A pattern is not run: it is the publisher's, and the tensors show what it matched.
        Some(Value::String(_)) => return Ok(Targets::AsInTensors),
        Some(Value::Array(listed)) => listed,
        _ => return Err(AdapterError::Config("`target_modules` is neither a list nor a text".to_owned())),
    };
    let mut names = Vec::with_capacity(listed.len());
    for entry in listed {
        let name = entry.as_str().unwrap_or_default();
        let module = name.rsplit('.').next().unwrap_or(name);
        if LoraModule::named(module).is_none() {
            return Err(AdapterError::Unsupported(format!("target module {}", quoted(&entry.to_string()))));
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Err(AdapterError::Config("`target_modules` is empty".to_owned()));
    }
    Ok(Targets::Listed(names))
}

/// A hub name that is not this base's is refused. Anything else (a path of the training machine) says nothing; then
/// the shapes decide.
fn check_base(trained_on: &str, base_names: &[&str]) -> Result<(), AdapterError> {
    let hub_style = trained_on.split('/').count() == 2
        && trained_on.split('/').all(|part| !part.is_empty())
        && !trained_on.starts_with(['.', '~'])
        && !trained_on.contains('\\');
    if !hub_style || base_names.is_empty() {
        return Ok(());
    }
    let last = trained_on.rsplit('/').next().unwrap_or(trained_on);
    let same = |base: &&&str| base.eq_ignore_ascii_case(if base.contains('/') { trained_on } else { last });
    if base_names.iter().any(|base| same(&base)) {
        return Ok(());
    }
    // The fullest of the base's names tells the reader most.
    let base = base_names.iter().find(|name| name.contains('/')).unwrap_or(&base_names[0]);
    Err(AdapterError::WrongBase { trained_on: quoted(trained_on), base: (*base).to_owned() })
}
