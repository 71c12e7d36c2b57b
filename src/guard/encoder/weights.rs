//! Tensors by name, from either kind of file: GGUF, which the embedded model is in, or
//! safetensors, which Hugging Face's folders have.

use std::collections::HashMap;
use std::io::Cursor;

use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Device, Tensor};

use super::error::{EncoderError, Result};

pub(super) enum Weights<'file> {
    Gguf { content: Content, file: &'file [u8] },
    Safetensors(HashMap<String, Tensor>),
}

/// The file as errors name it.
pub(super) const FILE: &str = "model.safetensors";

impl<'file> Weights<'file> {
    pub(super) fn gguf(file: &'file [u8]) -> Result<Self> {
        let content = Content::read(&mut Cursor::new(file))?;
        Ok(Self::Gguf { content, file })
    }

    pub(super) fn safetensors(file: &[u8]) -> Result<Self> {
        let read = candle_core::safetensors::load_buffer(file, &Device::Cpu);
        read.map(Self::Safetensors).map_err(|error| EncoderError::unfit(FILE, "header", error.to_string()))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Gguf { content, .. } => content.tensor_infos.contains_key(name),
            Self::Safetensors(tensors) => tensors.contains_key(name),
        }
    }

    /// As 32-bit floats, row by row; refused where it has another shape.
    pub(super) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.tensor(name, shape)?.flatten_all()?.to_vec1()?)
    }

    /// A table of which single rows are taken; it stays as small as it is in the file.
    pub(super) fn table(&self, name: &str, shape: &[usize; 2]) -> Result<QMatMul> {
        self.check(name, shape)?;
        Ok(match self {
            Self::Gguf { .. } => QMatMul::QTensor(self.quantised(name)?.into()),
            Self::Safetensors(_) => QMatMul::Tensor(self.tensor(name, shape)?),
        })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.check(name, shape)?;
        Ok(match self {
            Self::Gguf { .. } => self.quantised(name)?.dequantize(&Device::Cpu)?,
            Self::Safetensors(tensors) => tensors[name].to_dtype(DType::F32)?.contiguous()?,
        })
    }

    fn quantised(&self, name: &str) -> Result<QTensor> {
        match self {
            Self::Gguf { content, file } => Ok(content.tensor(&mut Cursor::new(file), name, &Device::Cpu)?),
            Self::Safetensors(_) => Err(EncoderError::unfit(FILE, name, "it is not quantised")),
        }
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = match self {
            Self::Gguf { content, .. } => content.tensor_infos.get(name).map(|info| info.shape.dims()),
            Self::Safetensors(tensors) => tensors.get(name).map(Tensor::dims),
        };
        match found {
            None => Err(EncoderError::unfit(FILE, name, "there is no such tensor")),
            Some(found) if found != shape => {
                let reason = format!("its shape is {found:?}, and by config.json it is {shape:?}");
                Err(EncoderError::unfit(FILE, name, reason))
            }
            Some(_) => Ok(()),
        }
    }
}
