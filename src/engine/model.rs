//! A model's weights, packed for the kernels.

use std::sync::Arc;

use thiserror::Error;

use super::cache::SequenceCache;
use super::files::{LayerTensor, ModelConfig, ModelFileError, ModelFiles, TensorName, Tokenizer};
use super::kernels::{KvShape, LayoutError, Matrix, Precision};

pub struct Model {
    config: ModelConfig,
    precision: Precision,
    kv_shape: KvShape,
    pub(super) inverse_frequencies: Vec<f32>,
    /// Vocabulary × hidden; the output projection too where the two are tied.
    pub(super) embedding: Matrix,
    pub(super) output: Option<Matrix>,
    pub(super) final_norm: Vec<f32>,
    pub(super) layers: Vec<Layer>,
    tokenizer: Option<Arc<Tokenizer>>,
}

pub(super) struct Layer {
    pub attn_norm: Vec<f32>,
    /// Queries, keys and values, one below the other.
    pub qkv: Matrix,
    pub qkv_bias: Option<Vec<f32>>,
    /// Norms of each head's queries and keys.
    pub qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    pub o: Matrix,
    pub ffn_norm: Vec<f32>,
    /// Gate and up, one below the other.
    pub gate_up: Matrix,
    pub down: Matrix,
}

#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Files(#[from] ModelFileError),
    #[error("{tensor}: cannot be packed for the {precision:?} path: {reason}")]
    Layout { tensor: String, precision: Precision, reason: LayoutError },
    #[error("the key-value cache cannot be laid out: {0}")]
    Cache(LayoutError),
}

// === impl Model ===

impl Model {
    /// Reads and packs all weights, one tensor at a time.
    pub fn load(files: &ModelFiles, precision: Precision) -> Result<Self, LoadError> {
        let config = files.config().clone();
        let kv_shape = KvShape::new(config.layers, config.kv_heads, config.head_dim).map_err(LoadError::Cache)?;
        let loader = Loader { files, precision };
        let embedding = loader.matrix(&[TensorName::Embedding])?;
        let output = if config.tied_embeddings { None } else { Some(loader.matrix(&[TensorName::LmHead])?) };
        let layers = (0..config.layers).map(|index| loader.layer(index)).collect::<Result<_, _>>()?;
        Ok(Self {
            inverse_frequencies: config.rope_inverse_frequencies(),
            embedding,
            output,
            final_norm: files.tensor(TensorName::FinalNorm)?,
            layers,
            tokenizer: files.tokenizer().cloned(),
            config,
            precision,
            kv_shape,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// `None` for a model that came without one, which an [`Engine`](super::Engine) does not run.
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// Memory the weights take.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &Layer| layer.qkv.bytes() + layer.o.bytes() + layer.gate_up.bytes() + layer.down.bytes();
        let output = self.output.as_ref().map_or(0, Matrix::bytes);
        self.embedding.bytes() + output + self.layers.iter().map(layer).sum::<usize>()
    }

    /// An empty cache with room for `positions`, for use without an engine.
    pub fn cache(&self, positions: usize) -> SequenceCache {
        SequenceCache::with_room(&self.kv_shape, self.precision, positions)
    }

    pub(super) fn kv_shape(&self) -> &KvShape {
        &self.kv_shape
    }

    /// What turns the last hidden state into logits.
    pub(super) fn output(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

struct Loader<'a> {
    files: &'a ModelFiles,
    precision: Precision,
}

// === impl Loader ===

impl Loader<'_> {
    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let config = self.files.config();
        let name = |tensor| TensorName::Layer(index, tensor);
        let vector = |tensor| self.files.tensor(name(tensor));
        let qkv_bias = if config.qkv_bias {
            let mut bias = vector(LayerTensor::QBias)?;
            bias.extend(vector(LayerTensor::KBias)?);
            bias.extend(vector(LayerTensor::VBias)?);
            Some(bias)
        } else {
            None
        };
        let qk_norm =
            if config.qk_norm { Some((vector(LayerTensor::QNorm)?, vector(LayerTensor::KNorm)?)) } else { None };
        Ok(Layer {
            attn_norm: vector(LayerTensor::AttnNorm)?,
            qkv: self.matrix(&[name(LayerTensor::Q), name(LayerTensor::K), name(LayerTensor::V)])?,
            qkv_bias,
            qk_norm,
            o: self.matrix(&[name(LayerTensor::O)])?,
            ffn_norm: vector(LayerTensor::FfnNorm)?,
            gate_up: self.matrix(&[name(LayerTensor::Gate), name(LayerTensor::Up)])?,
            down: self.matrix(&[name(LayerTensor::Down)])?,
        })
    }

    /// Packs tensors of equal width as one matrix, one below the other.
    fn matrix(&self, names: &[TensorName]) -> Result<Matrix, LoadError> {
        let config = self.files.config();
        let mut weights = Vec::new();
        let (mut outputs, mut inputs) = (0, 0);
        for &name in names {
            let shape = name.shape(config);
            outputs += shape[0];
            inputs = shape[1];
            let tensor = self.files.tensor(name)?;
            if weights.is_empty() { weights = tensor } else { weights.extend(tensor) }
        }
        Matrix::pack(&weights, outputs, inputs, self.precision).map_err(|reason| LoadError::Layout {
            tensor: names[0].hugging_face(),
            precision: self.precision,
            reason,
        })
    }
}
