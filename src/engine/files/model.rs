//! Opens a model, wherever it came from: a `.gguf` file or a Hugging Face folder.
//!
//! Opening reads heads, tokenizer and template and holds every tensor's shape against the configuration; weights are
//! read one at a time when asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::ModelConfig;
use super::error::ModelFileError;
use super::gguf::GgufHead;
use super::template::ChatTemplate;
use super::tensor_name::TensorName;
use super::tokenizer::{Tokenizer, TokenizerParts};
use super::weights::{OpenFile, StoredTensor, Weights};
use super::{config_gguf, hf_folder, tokenizer_gguf};

#[derive(Debug)]
pub struct ModelFiles {
    config: ModelConfig,
    weights: Weights,
    tokenizer: Option<Arc<Tokenizer>>,
    chat_template: Option<ChatTemplate>,
}

impl ModelFiles {
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        if path.is_dir() { Self::open_folder(path) } else { Self::open_gguf(path) }
    }

    /// What a model's configuration says, without its weights: of a GGUF file,
    /// a Hugging Face folder or a config.json alone.
    pub fn read_config(path: &Path) -> Result<ModelConfig, ModelFileError> {
        if path.is_dir() {
            return hf_folder::config(&path.join("config.json"));
        }
        match path.extension().is_some_and(|extension| extension == "json") {
            true => hf_folder::config(path),
            false => Self::open_gguf(path).map(|files| files.config),
        }
    }

    fn open_gguf(path: &Path) -> Result<Self, ModelFileError> {
        let file = Arc::new(OpenFile::open(path)?);
        let head = GgufHead::read(path, &file.file)?;
        let meta = config_gguf::Metadata { path, head: &head };
        let rope_factors = match StoredTensor::in_gguf(&file, &head, "rope_freqs.weight") {
            // Before the configuration is known this is the only bound on it.
            Some(tensor) if tensor.elements() > 1024 => {
                return Err(ModelFileError::tensor(path, "rope_freqs.weight", "is too large"));
            }
            Some(tensor) => Some(tensor.read()?),
            None => None,
        };
        let config = config_gguf::model_config(&meta, rope_factors)?;
        let weights = Weights::from_gguf(&file, &head, &config)?;
        let parsed = tokenizer_gguf::read(&meta)?;
        let tokenizer = Tokenizer::load(TokenizerParts {
            path,
            json: &parsed.json,
            eos_ids: parsed.eos_ids,
            eos_token: None,
            model_vocab: config.vocab,
        })?;
        let chat_template = match meta.text("tokenizer.chat_template")? {
            Some(source) => {
                let (bos, eos) = (parsed.bos_token.as_deref(), parsed.eos_token.as_deref());
                let template = ChatTemplate::parse(source, bos, eos, tokenizer.special_texts());
                Some(template.map_err(|error| meta.key("tokenizer.chat_template", error.to_string()))?)
            }
            None => None,
        };
        Ok(Self { config, weights, tokenizer: Some(Arc::new(tokenizer)), chat_template })
    }

    fn open_folder(folder: &Path) -> Result<Self, ModelFileError> {
        let parts = hf_folder::read(folder)?;
        let shards: Vec<PathBuf> = hf_folder::shards(folder)?;
        let weights = Weights::from_safetensors(&shards, folder, &parts.config)?;
        let Some(json) = parts.tokenizer_json else {
            return Ok(Self { config: parts.config, weights, tokenizer: None, chat_template: None });
        };
        let tokenizer = Tokenizer::load(TokenizerParts {
            path: &folder.join("tokenizer.json"),
            json: &json,
            eos_ids: parts.eos_ids,
            eos_token: parts.eos_token.as_deref(),
            model_vocab: parts.config.vocab,
        })?;
        let chat_template = match parts.chat_template {
            Some((file, source)) => {
                let (bos, eos) = (parts.bos_token.as_deref(), parts.eos_token.as_deref());
                let template = ChatTemplate::parse(&source, bos, eos, tokenizer.special_texts());
                Some(template.map_err(|error| ModelFileError::malformed(&file, error.to_string()))?)
            }
            None => None,
        };
        Ok(Self { config: parts.config, weights, tokenizer: Some(Arc::new(tokenizer)), chat_template })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Reads one tensor, row-major as [`TensorName::shape`] says. The output projection of a tied model is the
    /// embedding table. Refuses numbers that are not finite.
    pub fn tensor(&self, name: TensorName) -> Result<Vec<f32>, ModelFileError> {
        match self.weights.get(name) {
            Some(tensor) => tensor.read(),
            None => {
                Err(ModelFileError::tensor(Path::new("model"), &name.hugging_face(), "this model has no such tensor"))
            }
        }
    }

    /// `None` for a folder without tokenizer.json: weights alone, good for token ids only. Such a folder has no
    /// template either.
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }
}
