//! Our names for a model's weights, how the two formats spell them, and the shape each must have.

use super::config::ModelConfig;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorName {
    Embedding,
    FinalNorm,
    LmHead,
    Layer(usize, LayerTensor),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerTensor {
    AttnNorm,
    Q,
    K,
    V,
    O,
    QBias,
    KBias,
    VBias,
    QNorm,
    KNorm,
    FfnNorm,
    Gate,
    Up,
    Down,
}

impl LayerTensor {
    pub const ALL: [Self; 14] = [
        Self::AttnNorm,
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::QBias,
        Self::KBias,
        Self::VBias,
        Self::QNorm,
        Self::KNorm,
        Self::FfnNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    fn hugging_face(self) -> &'static str {
        match self {
            Self::AttnNorm => "input_layernorm.weight",
            Self::Q => "self_attn.q_proj.weight",
            Self::K => "self_attn.k_proj.weight",
            Self::V => "self_attn.v_proj.weight",
            Self::O => "self_attn.o_proj.weight",
            Self::QBias => "self_attn.q_proj.bias",
            Self::KBias => "self_attn.k_proj.bias",
            Self::VBias => "self_attn.v_proj.bias",
            Self::QNorm => "self_attn.q_norm.weight",
            Self::KNorm => "self_attn.k_norm.weight",
            Self::FfnNorm => "post_attention_layernorm.weight",
            Self::Gate => "mlp.gate_proj.weight",
            Self::Up => "mlp.up_proj.weight",
            Self::Down => "mlp.down_proj.weight",
        }
    }

    fn gguf(self) -> &'static str {
        match self {
            Self::AttnNorm => "attn_norm.weight",
            Self::Q => "attn_q.weight",
            Self::K => "attn_k.weight",
            Self::V => "attn_v.weight",
            Self::O => "attn_output.weight",
            Self::QBias => "attn_q.bias",
            Self::KBias => "attn_k.bias",
            Self::VBias => "attn_v.bias",
            Self::QNorm => "attn_q_norm.weight",
            Self::KNorm => "attn_k_norm.weight",
            Self::FfnNorm => "ffn_norm.weight",
            Self::Gate => "ffn_gate.weight",
            Self::Up => "ffn_up.weight",
            Self::Down => "ffn_down.weight",
        }
    }
}

impl TensorName {
    pub fn hugging_face(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".to_owned(),
            Self::FinalNorm => "model.norm.weight".to_owned(),
            Self::LmHead => "lm_head.weight".to_owned(),
            Self::Layer(layer, part) => format!("model.layers.{layer}.{}", part.hugging_face()),
        }
    }

    pub fn gguf(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".to_owned(),
            Self::FinalNorm => "output_norm.weight".to_owned(),
            Self::LmHead => "output.weight".to_owned(),
            Self::Layer(layer, part) => format!("blk.{layer}.{}", part.gguf()),
        }
    }

    /// Row-major, output rows first: `[out, in]` for a projection, one number for a norm or a bias.
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let queries = config.heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        let part = match self {
            Self::Embedding | Self::LmHead => return vec![config.vocab, config.hidden],
            Self::FinalNorm => return vec![config.hidden],
            Self::Layer(_, part) => part,
        };
        match part {
            LayerTensor::AttnNorm | LayerTensor::FfnNorm => vec![config.hidden],
            LayerTensor::Q => vec![queries, config.hidden],
            LayerTensor::K | LayerTensor::V => vec![keys, config.hidden],
            LayerTensor::O => vec![config.hidden, queries],
            LayerTensor::QBias => vec![queries],
            LayerTensor::KBias | LayerTensor::VBias => vec![keys],
            LayerTensor::QNorm | LayerTensor::KNorm => vec![config.head_dim],
            LayerTensor::Gate | LayerTensor::Up => vec![config.intermediate, config.hidden],
            LayerTensor::Down => vec![config.hidden, config.intermediate],
        }
    }
}
