//! Where each tensor of a model lies, whichever format it is in, and how to read one without touching the rest.
//!
//! Files stay open and are read at offsets; nothing is mapped, because a mapped file that shrinks kills the process
//! and mapping needs `unsafe`.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Architecture, ModelConfig};
use super::error::{ModelFileError, quoted};
use super::gguf::GgufHead;
use super::numbers::StoredAs;
use super::safetensors::{LENGTH_BYTES, head_length, parse_head};
use super::tensor_name::{LayerTensor, TensorName};

/// Read and converted at a time, so that a large table costs its f32 copy and no second one.
const CHUNK_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    file: Arc<OpenFile>,
    name: String,
    shape: Vec<usize>,
    stored_as: StoredAs,
    begin: u64,
    bytes: u64,
    rows: RowOrder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowOrder {
    AsIs,
    /// llama.cpp's converter interleaves the two halves of every head's rows, so that its RoPE can rotate
    /// neighbours. Ours rotates halves, as Hugging Face does, so the rows are put back on reading.
    Interleaved {
        head_dim: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Weights(HashMap<TensorName, StoredTensor>);

impl OpenFile {
    /// Only a regular file: a FIFO put in a model folder would block the open for ever.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelFileError> {
        let fail = |source| ModelFileError::read(path, source);
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(ModelFileError::malformed(path, "is not a regular file"));
        }
        Ok(Self { path: path.to_owned(), file: File::open(path).map_err(fail)? })
    }
}

impl Weights {
    pub(crate) fn from_gguf(
        file: &Arc<OpenFile>,
        head: &GgufHead,
        config: &ModelConfig,
    ) -> Result<Self, ModelFileError> {
        let interleaved = config.architecture == Architecture::Llama;
        let stored = head.tensors.iter().filter(|(name, _)| *name != "rope_freqs.weight").map(|(name, tensor)| {
            let stored = StoredTensor {
                file: file.clone(),
                name: name.clone(),
                shape: tensor.shape.clone(),
                stored_as: tensor.stored_as,
                begin: tensor.begin,
                bytes: tensor.bytes,
                rows: RowOrder::AsIs,
            };
            (name.clone(), stored)
        });
        let mut weights = Self::matched(config, stored.collect(), TensorName::gguf, &file.path)?;
        for (name, tensor) in &mut weights.0 {
            let rotated = matches!(
                name,
                TensorName::Layer(_, LayerTensor::Q | LayerTensor::K | LayerTensor::QBias | LayerTensor::KBias)
            );
            if rotated && interleaved {
                tensor.rows = RowOrder::Interleaved { head_dim: config.head_dim };
            }
        }
        Ok(weights)
    }

    /// `shards` are the safetensors files of one folder; `index` is named when a tensor is missing.
    pub(crate) fn from_safetensors(
        shards: &[PathBuf],
        index: &Path,
        config: &ModelConfig,
    ) -> Result<Self, ModelFileError> {
        let mut stored = HashMap::new();
        for shard in shards {
            for tensor in read_shard(shard)? {
                // Computed from the RoPE base; old checkpoints carry a copy.
                if tensor.name.ends_with("rotary_emb.inv_freq") {
                    continue;
                }
                let name = tensor.name.clone();
                if stored.insert(name.clone(), tensor).is_some() {
                    return Err(ModelFileError::tensor(shard, &quoted(&name), "occurs in another shard too"));
                }
            }
        }
        // Some writers store the tied projection a second time.
        if config.tied_embeddings {
            stored.remove(&TensorName::LmHead.hugging_face());
        }
        Self::matched(config, stored, TensorName::hugging_face, index)
    }

    /// Every tensor the config asks for must be there in its shape, and no other: an extra bias or norm would mean
    /// an architecture that we would compute wrongly.
    fn matched(
        config: &ModelConfig,
        mut stored: HashMap<String, StoredTensor>,
        spelling: fn(TensorName) -> String,
        path: &Path,
    ) -> Result<Self, ModelFileError> {
        let mut weights = HashMap::new();
        for name in config.tensor_names() {
            let spelled = spelling(name);
            let Some(tensor) = stored.remove(&spelled) else {
                return Err(ModelFileError::tensor(path, &spelled, "is missing"));
            };
            let expected = name.shape(config);
            if tensor.shape != expected {
                let reason = format!("has shape {:?}, the configuration asks for {expected:?}", tensor.shape);
                return Err(ModelFileError::tensor(&tensor.file.path, &spelled, reason));
            }
            weights.insert(name, tensor);
        }
        // The smallest name, so that the message does not change from run to run.
        if let Some(tensor) = stored.values().min_by(|left, right| left.name.cmp(&right.name)) {
            let reason = "does not belong to this architecture";
            return Err(ModelFileError::tensor(&tensor.file.path, &quoted(&tensor.name), reason));
        }
        Ok(Self(weights))
    }

    /// The stored tensor behind a name; a tied output projection is the embedding.
    pub(crate) fn get(&self, name: TensorName) -> Option<&StoredTensor> {
        match (self.0.get(&name), name) {
            (None, TensorName::LmHead) => self.0.get(&TensorName::Embedding),
            (found, _) => found,
        }
    }
}

impl StoredTensor {
    /// A small tensor outside the architecture's list, such as `rope_freqs.weight`.
    pub(crate) fn in_gguf(file: &Arc<OpenFile>, head: &GgufHead, name: &str) -> Option<Self> {
        let tensor = head.tensors.get(name)?;
        Some(Self {
            file: file.clone(),
            name: name.to_owned(),
            shape: tensor.shape.clone(),
            stored_as: tensor.stored_as,
            begin: tensor.begin,
            bytes: tensor.bytes,
            rows: RowOrder::AsIs,
        })
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn read(&self) -> Result<Vec<f32>, ModelFileError> {
        let refuse = |reason: String| ModelFileError::tensor(&self.file.path, &quoted(&self.name), reason);
        // The head was held against the file: the bytes are there, so reserving for them is bounded by the file.
        let mut values = Vec::with_capacity(self.elements());
        let block = self.stored_as.block_bytes();
        let mut chunk = vec![0; (CHUNK_BYTES / block * block).min(self.bytes as usize)];
        let mut done = 0;
        while done < self.bytes {
            let now = (chunk.len() as u64).min(self.bytes - done) as usize;
            let bytes = &mut chunk[..now];
            self.file
                .file
                .read_exact_at(bytes, self.begin + done)
                .map_err(|source| ModelFileError::read(&self.file.path, source))?;
            self.stored_as.decode_into(bytes, &mut values).map_err(refuse)?;
            done += now as u64;
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(refuse(format!("number {place} is {}", values[place])));
        }
        Ok(match self.rows {
            RowOrder::AsIs => values,
            RowOrder::Interleaved { head_dim } => halves_together(&values, self.shape[0], head_dim),
        })
    }
}

/// Row `2 j + half` of a head becomes row `half * head_dim / 2 + j`.
fn halves_together(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let mut ordered = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * width) {
        for half in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = 2 * pair + half;
                ordered.extend_from_slice(&head[row * width..(row + 1) * width]);
            }
        }
    }
    ordered
}

fn read_shard(path: &Path) -> Result<Vec<StoredTensor>, ModelFileError> {
    let file = OpenFile::open(path)?;
    let fail = |source| ModelFileError::read(path, source);
    let file_bytes = file.file.metadata().map_err(fail)?.len();
    if file_bytes < LENGTH_BYTES {
        return Err(ModelFileError::malformed(path, format!("{file_bytes} bytes are too few for a safetensors file")));
    }
    let mut first = [0; LENGTH_BYTES as usize];
    file.file.read_exact_at(&mut first, 0).map_err(fail)?;
    let fault = |fault: super::safetensors::HeadFault| match fault.tensor {
        Some(tensor) => ModelFileError::tensor(path, &tensor, fault.reason),
        None => ModelFileError::malformed(path, fault.reason),
    };
    let head_bytes = head_length(first, file_bytes).map_err(fault)?;
    let mut json = vec![0; head_bytes as usize];
    file.file.read_exact_at(&mut json, LENGTH_BYTES).map_err(fail)?;
    let data_begin = LENGTH_BYTES + head_bytes;
    let tensors = parse_head(&json, file_bytes - data_begin).map_err(fault)?;
    let file = Arc::new(file);
    let mut stored = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let Some(stored_as) = StoredAs::from_safetensors(&tensor.dtype) else {
            let reason = format!("type {} is not supported; F32, F16 and BF16 are", tensor.dtype);
            return Err(ModelFileError::tensor(path, &quoted(&tensor.name), reason));
        };
        stored.push(StoredTensor {
            file: file.clone(),
            name: tensor.name,
            shape: tensor.shape,
            stored_as,
            begin: data_begin + tensor.begin,
            bytes: tensor.end - tensor.begin,
            rows: RowOrder::AsIs,
        });
    }
    Ok(stored)
}
