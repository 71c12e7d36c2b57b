//! What the engine must know about a model before it reads a single weight, and the limits of what it accepts.
//!
//! The two readers, `config_hf` and `config_gguf`, fill this in; `check` is the one place that decides whether
//! the numbers make sense. Nothing is checked again later.

use super::tensor_name::{LayerTensor, TensorName};

#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub vocab: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Longest sequence in tokens. Already capped to `sliding_window`: the engine has full attention only, and
    /// within one window full and windowed attention are the same thing. A longer context would be wrong.
    pub context: usize,
    pub rms_eps: f32,
    pub rope_theta: f32,
    pub rope_scaling: RopeScaling,
    /// Biases on q, k and v (Qwen2). Never on o.
    pub qkv_bias: bool,
    /// An RMS norm per head on q and k before the rotation (Qwen3).
    pub qk_norm: bool,
    /// The output projection is the embedding table.
    pub tied_embeddings: bool,
    pub sliding_window: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every frequency divided by the factor.
    Linear(f32),
    /// Llama 3.1: long wavelengths divided by the factor, short ones kept, a ramp between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: usize,
    },
    /// One divisor for each of the `head_dim / 2` frequencies, as GGUF's `rope_freqs.weight` gives them.
    Factors(Vec<f32>),
}

/// Far above any model that a CPU serves, far below what would overflow or exhaust memory by a typing error.
const MAX_VOCAB: usize = 1 << 21;
const MAX_HIDDEN: usize = 1 << 16;
const MAX_INTERMEDIATE: usize = 1 << 20;
const MAX_LAYERS: usize = 512;
const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;
const MAX_CONTEXT: usize = 1 << 24;

impl ModelConfig {
    /// Says what is wrong, in words that name the field.
    pub fn check(&self) -> Result<(), String> {
        within("vocabulary", self.vocab, MAX_VOCAB)?;
        within("hidden size", self.hidden, MAX_HIDDEN)?;
        within("intermediate size", self.intermediate, MAX_INTERMEDIATE)?;
        within("number of layers", self.layers, MAX_LAYERS)?;
        within("number of attention heads", self.heads, MAX_HEADS)?;
        within("number of key-value heads", self.kv_heads, MAX_HEADS)?;
        within("head size", self.head_dim, MAX_HEAD_DIM)?;
        within("context length", self.context, MAX_CONTEXT)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv_heads) = (self.heads, self.kv_heads);
            return Err(format!("{heads} attention heads cannot share {kv_heads} key-value heads evenly"));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("head size {} is odd, so it cannot be rotated in pairs", self.head_dim));
        }
        if !(self.rms_eps > 0.0 && self.rms_eps <= 0.1) {
            return Err(format!("RMS epsilon {} is not within 0 and 0.1", self.rms_eps));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta <= 1e12) {
            return Err(format!("RoPE base {} is not within 1 and 1e12", self.rope_theta));
        }
        if self.sliding_window == Some(0) {
            return Err("sliding window is zero".to_owned());
        }
        if self.sliding_window.is_some_and(|window| window < self.context) {
            return Err("context is longer than the sliding window".to_owned());
        }
        self.check_rope_scaling()
    }

    fn check_rope_scaling(&self) -> Result<(), String> {
        let sane = |factor: f32| factor.is_finite() && factor > 0.0 && factor <= 1e6;
        match &self.rope_scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear(factor) if sane(*factor) => Ok(()),
            RopeScaling::Linear(factor) => Err(format!("RoPE scaling factor {factor} makes no sense")),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let ordered = high_freq_factor > low_freq_factor;
                if sane(*factor)
                    && sane(*low_freq_factor)
                    && sane(*high_freq_factor)
                    && ordered
                    && *original_context > 0
                {
                    return Ok(());
                }
                Err(format!(
                    "llama3 RoPE scaling makes no sense: factor {factor}, low {low_freq_factor}, \
                     high {high_freq_factor}, original context {original_context}"
                ))
            }
            RopeScaling::Factors(factors) => {
                if factors.len() != self.head_dim / 2 {
                    let (found, expected) = (factors.len(), self.head_dim / 2);
                    return Err(format!("{found} RoPE factors where {expected} are needed"));
                }
                match factors.iter().find(|factor| !sane(**factor)) {
                    Some(factor) => Err(format!("RoPE factor {factor} makes no sense")),
                    None => Ok(()),
                }
            }
        }
    }

    /// The angle per position of each rotated pair: `head_dim / 2` values, computed in f32 as the reference does.
    pub fn rope_inverse_frequencies(&self) -> Vec<f32> {
        let mut frequencies: Vec<f32> = (0..self.head_dim / 2)
            .map(|pair| 1.0 / self.rope_theta.powf((2 * pair) as f32 / self.head_dim as f32))
            .collect();
        match &self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear(factor) => frequencies.iter_mut().for_each(|f| *f /= factor),
            RopeScaling::Factors(factors) => {
                frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let original = *original_context as f32;
                for frequency in &mut frequencies {
                    let wavelength = 2.0 * std::f32::consts::PI / *frequency;
                    if wavelength > original / low_freq_factor {
                        *frequency /= factor;
                    } else if wavelength >= original / high_freq_factor {
                        let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        *frequency = (1.0 - smooth) * (*frequency / factor) + smooth * *frequency;
                    }
                }
            }
        }
        frequencies
    }

    /// Every tensor such a model has, in the order the engine reads them. A tied output projection is not listed.
    pub fn tensor_names(&self) -> Vec<TensorName> {
        let mut names = vec![TensorName::Embedding];
        for layer in 0..self.layers {
            let parts = LayerTensor::ALL.into_iter().filter(|part| match part {
                LayerTensor::QBias | LayerTensor::KBias | LayerTensor::VBias => self.qkv_bias,
                LayerTensor::QNorm | LayerTensor::KNorm => self.qk_norm,
                _ => true,
            });
            names.extend(parts.map(|part| TensorName::Layer(layer, part)));
        }
        names.push(TensorName::FinalNorm);
        if !self.tied_embeddings {
            names.push(TensorName::LmHead);
        }
        names
    }
}

impl Architecture {
    /// The name in config.json's `model_type` and, for all but Mistral, in GGUF.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

fn within(what: &str, value: usize, most: usize) -> Result<(), String> {
    if value == 0 {
        return Err(format!("{what} is zero"));
    }
    if value > most {
        return Err(format!("{what} {value} is more than {most}"));
    }
    Ok(())
}

/// Caps a declared context to the sliding window; see [`ModelConfig::context`].
pub(crate) fn capped_context(context: usize, sliding_window: Option<usize>) -> usize {
    sliding_window.map_or(context, |window| context.min(window))
}
