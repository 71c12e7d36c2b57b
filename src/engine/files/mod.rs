//! A model's files, read with suspicion: weights, configuration, tokenizer, chat template, LoRA adapters.
//!
//! Everything in a file may be wrong or malicious. Declared sizes are held against the file before memory is reserved,
//! shapes against the configuration, and an error names the file, the key or tensor, and the reason. What the engine
//! cannot compute exactly (other activations, YaRN, mixtures of experts, …) is refused by name when the model is
//! opened, not discovered later as wrong text.
//!
//! Nothing here computes: the forward pass asks for one tensor at a time as f32 and keeps them as it likes.

mod adapter;
mod adapter_config;
mod adapter_error;
mod config;
mod config_gguf;
mod config_hf;
mod content_guard;
mod convert;
mod error;
mod gguf;
mod hf_folder;
mod model;
mod numbers;
mod safetensors;
mod template;
mod template_functions;
mod tensor_name;
mod token_bytes;
mod tokenizer;
mod tokenizer_gguf;
mod weights;

#[cfg(test)]
mod tests;

pub use adapter::{AdapterFiles, AdapterModule, LoraModule};
pub use adapter_config::{AdapterConfig, AdapterLimits};
pub use adapter_error::AdapterError;
pub use config::{Architecture, ModelConfig, RopeScaling};
pub use convert::write_hf_folder;
pub use error::ModelFileError;
pub use model::ModelFiles;
pub use numbers::SaveDtype;
pub use template::{ChatMessage, ChatTemplate, GenerationPrompt, RenderedPrompt, TemplateError};
pub use tensor_name::{LayerTensor, TensorName};
pub use tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
