//! Turns stored weights, plain or in GGML blocks, into f32.
//!
//! The block formats are candle's; what is done here is to hand it only whole blocks, so that none of its assertions
//! can be reached by a file.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::{bf16, f16};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredAs {
    F32,
    F16,
    Bf16,
    Block(GgmlDType),
}

impl StoredAs {
    pub(crate) fn from_safetensors(dtype: &str) -> Option<Self> {
        match dtype {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The number that a GGUF tensor entry carries.
    pub(crate) fn from_ggml(code: u32) -> Option<Self> {
        let block = match code {
            0 => return Some(Self::F32),
            1 => return Some(Self::F16),
            30 => return Some(Self::Bf16),
            2 => GgmlDType::Q4_0,
            3 => GgmlDType::Q4_1,
            6 => GgmlDType::Q5_0,
            7 => GgmlDType::Q5_1,
            8 => GgmlDType::Q8_0,
            10 => GgmlDType::Q2K,
            11 => GgmlDType::Q3K,
            12 => GgmlDType::Q4K,
            13 => GgmlDType::Q5K,
            14 => GgmlDType::Q6K,
            _ => return None,
        };
        Some(Self::Block(block))
    }

    pub(crate) fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Block(block) => block.block_size(),
        }
    }

    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Block(block) => block.type_size(),
        }
    }

    /// Bytes that `elements` take, or `None` when they do not fill whole blocks or do not fit in 64 bits.
    pub(crate) fn bytes_for(self, elements: u64) -> Option<u64> {
        let per_block = self.block_elements() as u64;
        if !elements.is_multiple_of(per_block) {
            return None;
        }
        (elements / per_block).checked_mul(self.block_bytes() as u64)
    }

    /// Appends the numbers in `bytes`, which must be whole blocks.
    pub(crate) fn decode_into(self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), String> {
        match self {
            Self::F32 => out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::F16 => out.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            Self::Bf16 => out.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            Self::Block(block) => out.extend(dequantised(block, bytes).map_err(|error| error.to_string())?),
        }
        Ok(())
    }
}

fn dequantised(block: GgmlDType, bytes: &[u8]) -> candle_core::Result<Vec<f32>> {
    let elements = bytes.len() / block.type_size() * block.block_size();
    let storage = QStorage::from_data(bytes.into(), &Device::Cpu, block)?;
    QTensor::new(storage, elements)?.dequantize(&Device::Cpu)?.to_vec1()
}

/// What `write_hf_folder` stores weights as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveDtype {
    F32,
    F16,
    Bf16,
}

impl SaveDtype {
    pub(crate) fn safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// As config.json's `torch_dtype` spells it.
    pub(crate) fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        }
    }
}
