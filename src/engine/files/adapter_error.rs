//! Why an adapter was refused. The texts are for the tenant who published it: each names the file, the tensor where
//! there is one, and the reason. None shows a path of this machine.

use std::io;

pub(crate) const CONFIG_FILE: &str = "adapter_config.json";
pub(crate) const WEIGHTS_FILE: &str = "adapter_model.safetensors";

#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    #[error("{file} is missing")]
    Missing { file: &'static str },
    #[error(
        "adapter_model.bin is a pickle, which can run code when it is read; \
         save the adapter as adapter_model.safetensors"
    )]
    Pickle,
    /// Not the adapter's fault: worth another try.
    #[error("{file} cannot be read: {source}")]
    Read { file: &'static str, source: io::Error },
    #[error("{file} has {bytes} bytes, at most {most} are allowed")]
    TooLarge { file: &'static str, bytes: u64, most: u64 },
    #[error("adapter_config.json: {0}")]
    Config(String),
    #[error("adapter_config.json: {0} is not supported")]
    Unsupported(String),
    #[error("the adapter was trained on `{trained_on}`, this base is `{base}`")]
    WrongBase { trained_on: String, base: String },
    #[error("adapter_model.safetensors: {0}")]
    Weights(String),
    #[error("adapter_model.safetensors: tensor `{tensor}`: {reason}")]
    Tensor { tensor: String, reason: String },
}

impl AdapterError {
    /// Whether the same files could be accepted later. Everything else stays wrong until a new revision.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Read { .. })
    }

    pub(crate) fn tensor(name: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { tensor: super::error::quoted(name), reason: reason.into() }
    }
}
