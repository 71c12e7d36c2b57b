//! Reads a [`ModelConfig`] from a Hugging Face config.json, refusing by name what the engine cannot compute.
//!
//! Keys that change nothing about the forward pass are ignored; every key known to change it is either read or
//! refused, because a model computed slightly wrong answers fluently and nobody notices.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::config::{Architecture, ModelConfig, RopeScaling, capped_context};
use super::error::{ModelFileError, quoted};

#[derive(Deserialize)]
pub(crate) struct HfConfig {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_scaling: Option<Rope>,
    /// Where transformers 5 keeps both the base and the scaling.
    rope_parameters: Option<Rope>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    partial_rotary_factor: Option<f32>,
    quantization_config: Option<Value>,
    num_experts: Option<usize>,
    num_local_experts: Option<usize>,
    pub(crate) eos_token_id: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Rope {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
    /// What `rope_type` was called before transformers 4.43.
    #[serde(rename = "type")]
    old_type: Option<String>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f32>,
}

impl HfConfig {
    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<Self, ModelFileError> {
        serde_json::from_slice(json).map_err(|error| ModelFileError::malformed(path, error.to_string()))
    }

    pub(crate) fn model_config(&self, path: &Path) -> Result<ModelConfig, ModelFileError> {
        let architecture = self.architecture(path)?;
        self.refuse_unsupported(path, architecture)?;
        let heads = self.num_attention_heads;
        let head_dim = match self.head_dim {
            Some(size) => size,
            None if heads > 0 && self.hidden_size.is_multiple_of(heads) => self.hidden_size / heads,
            None => {
                let reason = format!("hidden size {} does not divide by {heads} heads", self.hidden_size);
                return Err(ModelFileError::key(path, "num_attention_heads", reason));
            }
        };
        let sliding_window = self.window(architecture);
        let theta = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta).or(self.rope_theta);
        let config = ModelConfig {
            architecture,
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim,
            context: capped_context(self.max_position_embeddings, sliding_window),
            rms_eps: self.rms_norm_eps,
            rope_theta: theta.unwrap_or(10_000.0),
            rope_scaling: self.rope_scaling(path)?,
            qkv_bias: architecture == Architecture::Qwen2,
            qk_norm: architecture == Architecture::Qwen3,
            tied_embeddings: self.tie_word_embeddings.unwrap_or(false),
            sliding_window,
        };
        config.check().map_err(|reason| ModelFileError::malformed(path, reason))?;
        Ok(config)
    }

    fn architecture(&self, path: &Path) -> Result<Architecture, ModelFileError> {
        let known = [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];
        known
            .into_iter()
            .find(|architecture| architecture.name() == self.model_type)
            .ok_or_else(|| ModelFileError::unsupported(path, format!("model type `{}`", quoted(&self.model_type))))
    }

    fn refuse_unsupported(&self, path: &Path, architecture: Architecture) -> Result<(), ModelFileError> {
        let refuse = |what: String| Err(ModelFileError::unsupported(path, what));
        if let Some(activation) = self.hidden_act.as_deref().filter(|name| *name != "silu") {
            return refuse(format!("activation `{}`", quoted(activation)));
        }
        if self.num_experts.unwrap_or(0) > 0 || self.num_local_experts.unwrap_or(0) > 0 {
            return refuse("a mixture of experts".to_owned());
        }
        if self.quantization_config.as_ref().is_some_and(|value| !value.is_null()) {
            return refuse("`quantization_config`: a quantised Hugging Face folder".to_owned());
        }
        // In Llama and Qwen3 this also puts a bias on o, which the engine has no place for; Qwen2 ignores the key.
        if self.attention_bias == Some(true) && architecture != Architecture::Qwen2 {
            return refuse("`attention_bias`".to_owned());
        }
        if self.mlp_bias == Some(true) {
            return refuse("`mlp_bias`".to_owned());
        }
        let rope_part = self.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
        if self.partial_rotary_factor.or(rope_part).is_some_and(|part| part != 1.0) {
            return refuse("`partial_rotary_factor` other than 1".to_owned());
        }
        let unknown = |kind: &&String| !matches!(kind.as_str(), "full_attention" | "sliding_attention");
        if let Some(kind) = self.layer_types.iter().flatten().find(unknown) {
            return refuse(format!("layer type `{}`", quoted(kind)));
        }
        Ok(())
    }

    /// Qwen configs carry a window that is switched off; Mistral's and Llama's, when there, is on.
    fn window(&self, architecture: Architecture) -> Option<usize> {
        let on = match (&self.layer_types, architecture) {
            (Some(layers), _) => layers.iter().any(|kind| kind == "sliding_attention"),
            (None, Architecture::Qwen2 | Architecture::Qwen3) => self.use_sliding_window.unwrap_or(false),
            (None, Architecture::Llama | Architecture::Mistral) => true,
        };
        self.sliding_window.filter(|_| on)
    }

    fn rope_scaling(&self, path: &Path) -> Result<RopeScaling, ModelFileError> {
        let Some(rope) = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()) else {
            return Ok(RopeScaling::None);
        };
        let kind = rope.rope_type.as_deref().or(rope.old_type.as_deref()).unwrap_or("default");
        let need = |value: Option<f32>, key: &str| {
            value.ok_or_else(|| ModelFileError::key(path, key, format!("is missing for RoPE scaling `{kind}`")))
        };
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear(need(rope.factor, "factor")?)),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: need(rope.factor, "factor")?,
                low_freq_factor: need(rope.low_freq_factor, "low_freq_factor")?,
                high_freq_factor: need(rope.high_freq_factor, "high_freq_factor")?,
                original_context: rope.original_max_position_embeddings.ok_or_else(|| {
                    ModelFileError::key(
                        path,
                        "original_max_position_embeddings",
                        "is missing for RoPE scaling `llama3`",
                    )
                })?,
            }),
            other => Err(ModelFileError::unsupported(path, format!("RoPE scaling `{}`", quoted(other)))),
        }
    }
}
