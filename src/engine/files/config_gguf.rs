//! Reads a [`ModelConfig`] from GGUF metadata, refusing by name what the engine cannot compute.

use std::path::Path;

use super::config::{Architecture, ModelConfig, RopeScaling, capped_context};
use super::error::{ModelFileError, quoted};
use super::gguf::{GgufHead, GgufValue};

pub(crate) struct Metadata<'a> {
    pub(crate) path: &'a Path,
    pub(crate) head: &'a GgufHead,
}

/// `rope_factors` is the content of `rope_freqs.weight`, if the file has that tensor.
pub(crate) fn model_config(meta: &Metadata<'_>, rope_factors: Option<Vec<f32>>) -> Result<ModelConfig, ModelFileError> {
    let name = meta.text("general.architecture")?.ok_or_else(|| meta.missing("general.architecture"))?;
    let architecture = match name {
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        other => return Err(meta.unsupported(format!("architecture `{}`", quoted(other)))),
    };
    let key = |part: &str| format!("{name}.{part}");
    if meta.integer(&key("expert_count"))?.unwrap_or(0) > 0 {
        return Err(meta.unsupported("a mixture of experts"));
    }
    let heads = meta.required(&key("attention.head_count"))?;
    let hidden = meta.required(&key("embedding_length"))?;
    let head_dim = match meta.integer(&key("attention.key_length"))? {
        Some(size) => size,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let reason = format!("hidden size {hidden} does not divide by {heads} heads");
            return Err(meta.key(&key("attention.head_count"), reason));
        }
    };
    for other in ["attention.value_length", "rope.dimension_count"] {
        if meta.integer(&key(other))?.is_some_and(|size| size != head_dim) {
            return Err(meta.unsupported(format!("`{}` that differs from the head size {head_dim}", key(other))));
        }
    }
    let vocab = match meta.head.tensors.get("token_embd.weight") {
        Some(table) => table.shape[0],
        None => return Err(ModelFileError::tensor(meta.path, "token_embd.weight", "is missing")),
    };
    let sliding_window = meta.integer(&key("attention.sliding_window"))?;
    let config = ModelConfig {
        architecture,
        vocab,
        hidden,
        intermediate: meta.required(&key("feed_forward_length"))?,
        layers: meta.required(&key("block_count"))?,
        heads,
        kv_heads: meta.integer(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        context: capped_context(meta.required(&key("context_length"))?, sliding_window),
        rms_eps: meta
            .float(&key("attention.layer_norm_rms_epsilon"))?
            .ok_or_else(|| meta.missing(&key("attention.layer_norm_rms_epsilon")))? as f32,
        rope_theta: meta.float(&key("rope.freq_base"))?.unwrap_or(10_000.0) as f32,
        rope_scaling: rope_scaling(meta, name, rope_factors)?,
        qkv_bias: architecture == Architecture::Qwen2,
        qk_norm: architecture == Architecture::Qwen3,
        tied_embeddings: !meta.head.tensors.contains_key("output.weight"),
        sliding_window,
    };
    config.check().map_err(|reason| ModelFileError::malformed(meta.path, reason))?;
    Ok(config)
}

fn rope_scaling(meta: &Metadata<'_>, name: &str, factors: Option<Vec<f32>>) -> Result<RopeScaling, ModelFileError> {
    let kind = meta.text(&format!("{name}.rope.scaling.type"))?.unwrap_or("none");
    let scale = meta.float(&format!("{name}.rope.scaling.factor"))?;
    match (kind, factors) {
        ("none", Some(factors)) => Ok(RopeScaling::Factors(factors)),
        ("none", None) => Ok(RopeScaling::None),
        ("linear", None) => match scale {
            Some(factor) => Ok(RopeScaling::Linear(factor as f32)),
            None => Err(meta.missing(&format!("{name}.rope.scaling.factor"))),
        },
        ("linear", Some(_)) => Err(meta.unsupported("linear RoPE scaling together with `rope_freqs.weight`")),
        (other, _) => Err(meta.unsupported(format!("RoPE scaling `{}`", quoted(other)))),
    }
}

impl<'a> Metadata<'a> {
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelFileError> {
        match self.head.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.key(key, "is not a text")),
        }
    }

    /// A count. Some converters write one value per layer; that is accepted when all of them are equal.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<usize>, ModelFileError> {
        let value = match self.head.metadata.get(key) {
            None => return Ok(None),
            Some(GgufValue::Integer(value)) => *value,
            Some(GgufValue::Integers(values)) => match values.first() {
                Some(first) if values.iter().all(|value| value == first) => i128::from(*first),
                _ => return Err(self.unsupported(format!("`{key}` that differs between layers"))),
            },
            Some(_) => return Err(self.key(key, "is not a whole number")),
        };
        match usize::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(self.key(key, format!("{value} is not a count"))),
        }
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>, ModelFileError> {
        match self.head.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Float(value)) => Ok(Some(*value)),
            Some(GgufValue::Integer(value)) => Ok(Some(*value as f64)),
            Some(_) => Err(self.key(key, "is not a number")),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ModelFileError> {
        match self.head.metadata.get(key) {
            None => Ok(None),
            Some(GgufValue::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.key(key, "is not a truth value")),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<&'a [String], ModelFileError> {
        match self.head.metadata.get(key) {
            None => Err(self.missing(key)),
            Some(GgufValue::Texts(texts)) => Ok(texts),
            Some(_) => Err(self.key(key, "is not a list of texts")),
        }
    }

    fn required(&self, key: &str) -> Result<usize, ModelFileError> {
        self.integer(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn missing(&self, key: &str) -> ModelFileError {
        self.key(key, "is missing")
    }

    pub(crate) fn key(&self, key: &str, reason: impl Into<String>) -> ModelFileError {
        ModelFileError::key(self.path, key, reason)
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>) -> ModelFileError {
        ModelFileError::unsupported(self.path, what)
    }
}
