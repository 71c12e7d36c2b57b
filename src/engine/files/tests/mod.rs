//! Files made to be wrong, and the exact words they are refused with.

mod adapters;
mod configs;
mod gguf_files;
mod safetensors_files;
mod tokenizers;

use std::fs;
use std::path::Path;

use super::config::{Architecture, ModelConfig, RopeScaling};

/// A small model that every test here agrees on.
fn small_config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab: 12,
        hidden: 8,
        intermediate: 16,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        context: 64,
        rms_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        qkv_bias: false,
        qk_norm: false,
        tied_embeddings: true,
        sliding_window: None,
    }
}

/// One tensor of a safetensors file under construction.
#[derive(Clone)]
struct Planned {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Planned {
    fn f32(name: impl Into<String>, shape: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        let data = (0..count).flat_map(|at| (at as f32 / 8.0).to_le_bytes()).collect();
        Self { name: name.into(), dtype: "F32", shape: shape.to_vec(), data }
    }
}

/// Laid out as the format demands.
fn safetensors_bytes(tensors: &[Planned]) -> Vec<u8> {
    let mut place = 0;
    let mut entries = Vec::new();
    for tensor in tensors {
        let end = place + tensor.data.len();
        let (name, dtype, shape) = (&tensor.name, tensor.dtype, &tensor.shape);
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{place},{end}]}}"#));
        place = end;
    }
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data.clone()).collect();
    with_head(&format!("{{{}}}", entries.join(",")), &data)
}

fn with_head(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(folder.join(name), content).unwrap();
}
