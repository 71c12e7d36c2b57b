//! Reads the head of a safetensors file: where each tensor lies, of what type and shape.
//!
//! The `safetensors` crate wants the whole file in memory and its errors do not name the tensor, so the head is
//! parsed here. It is not trusted: its length is held against the file before it is read, names must be unique, and
//! the tensors must cover what follows the head exactly, without holes or overlaps, as the format demands.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::error::quoted;

/// A model of a thousand tensors has a head of about 100 KiB.
const MAX_HEAD_BYTES: u64 = 16 << 20;
pub(crate) const LENGTH_BYTES: u64 = 8;
const MAX_DIMENSIONS: usize = 8;

#[derive(Debug)]
pub(crate) struct SafeTensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    /// From the first byte after the head.
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// What is wrong with a head, and with which tensor if it is one's own fault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeadFault {
    pub(crate) tensor: Option<String>,
    pub(crate) reason: String,
}

impl HeadFault {
    fn file(reason: impl Into<String>) -> Self {
        Self { tensor: None, reason: reason.into() }
    }

    fn tensor(name: &str, reason: impl Into<String>) -> Self {
        Self { tensor: Some(quoted(name)), reason: reason.into() }
    }
}

/// How many bytes of JSON follow the first eight.
pub(crate) fn head_length(first: [u8; 8], file_bytes: u64) -> Result<u64, HeadFault> {
    let declared = u64::from_le_bytes(first);
    let left = file_bytes.saturating_sub(LENGTH_BYTES);
    if declared > left {
        return Err(HeadFault::file(format!(
            "the header claims {declared} bytes, the file has {left} after its length"
        )));
    }
    if declared > MAX_HEAD_BYTES {
        return Err(HeadFault::file(format!("a header of {declared} bytes is more than {MAX_HEAD_BYTES}")));
    }
    Ok(declared)
}

/// `data_bytes` is what the file holds after its head.
pub(crate) fn parse_head(json: &[u8], data_bytes: u64) -> Result<Vec<SafeTensor>, HeadFault> {
    let Entries(entries) =
        serde_json::from_slice(json).map_err(|error| HeadFault::file(format!("the header is not valid: {error}")))?;
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        if !names.insert(name.clone()) {
            return Err(HeadFault::tensor(&name, "occurs twice"));
        }
        tensors.push(checked(name, entry)?);
    }
    tensors.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let mut expected = 0;
    for tensor in &tensors {
        if tensor.begin != expected {
            let kind =
                if tensor.begin < expected { "overlaps the tensor before it" } else { "leaves a hole before it" };
            return Err(HeadFault::tensor(&tensor.name, format!("starting at byte {} {kind}", tensor.begin)));
        }
        expected = tensor.end;
    }
    if expected != data_bytes {
        return Err(HeadFault::file(format!(
            "its tensors take {expected} bytes, but {data_bytes} follow the header: cut off or padded"
        )));
    }
    Ok(tensors)
}

fn checked(name: String, entry: Entry) -> Result<SafeTensor, HeadFault> {
    let width: u64 = match entry.dtype.as_str() {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" => 1,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "F32" | "I32" | "U32" => 4,
        "F64" | "I64" | "U64" => 8,
        other => return Err(HeadFault::tensor(&name, format!("type {} is unknown", quoted(other)))),
    };
    if entry.shape.len() > MAX_DIMENSIONS {
        return Err(HeadFault::tensor(&name, format!("{} dimensions are too many", entry.shape.len())));
    }
    let bytes = entry.shape.iter().try_fold(width, |product, size| product.checked_mul(*size));
    let (begin, end) = entry.data_offsets;
    let span = end.checked_sub(begin);
    if bytes.is_none() || bytes != span {
        let (dtype, shape) = (&entry.dtype, &entry.shape);
        return Err(HeadFault::tensor(
            &name,
            format!("bytes {begin} to {end} do not hold {dtype} numbers of shape {shape:?}"),
        ));
    }
    let shape: Option<Vec<usize>> = entry.shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let Some(shape) = shape else {
        return Err(HeadFault::tensor(&name, "a dimension is too large"));
    };
    Ok(SafeTensor { name, dtype: entry.dtype, shape, begin, end })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header object in file order, duplicates kept so that they can be refused: a map would keep the last silently.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let entry = map
                        .next_value::<Entry>()
                        .map_err(|error| M::Error::custom(format!("tensor `{}`: {error}", quoted(&name))))?;
                    entries.push((name, entry));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}
