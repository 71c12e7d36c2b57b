//! Reads the head of a GGUF file: its metadata and where its tensors lie. Versions 2 and 3, little endian.
//!
//! The file is not trusted. Every declared length is held against what is left of the file before anything is
//! reserved for it, the head as a whole is bounded, and tensors must lie inside the file without overlapping.
//! candle has a reader too; it keeps 32 bytes for each array element of one byte, takes the last of two equal keys,
//! repairs bad UTF-8 silently and divides by an alignment of zero, so only its block formats are used.
//!
//! Not read: nested arrays (no model needs them) and version 1.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::error::{ModelFileError, quoted};
use super::numbers::StoredAs;

/// A vocabulary of 256 000 tokens with its merges takes about 10 MiB.
const MAX_HEAD_BYTES: u64 = 64 << 20;
const MAX_ENTRIES: u64 = 65_536;
const MAX_NAME_BYTES: u64 = 512;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GgufValue {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    /// Integers of two bytes and more.
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    /// Arrays of one-byte elements and of f64, which nothing here reads.
    Unused,
}

#[derive(Debug)]
pub(crate) struct GgufTensor {
    /// Outermost dimension first, the other way round than in the file.
    pub(crate) shape: Vec<usize>,
    pub(crate) stored_as: StoredAs,
    /// Absolute, in bytes.
    pub(crate) begin: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct GgufHead {
    pub(crate) metadata: HashMap<String, GgufValue>,
    pub(crate) tensors: HashMap<String, GgufTensor>,
}

impl GgufHead {
    pub(crate) fn read(path: &Path, file: &File) -> Result<Self, ModelFileError> {
        let file_bytes = file.metadata().map_err(|source| ModelFileError::read(path, source))?.len();
        let mut reader = HeadReader {
            path,
            input: BufReader::with_capacity(1 << 16, file),
            position: 0,
            end: file_bytes.min(MAX_HEAD_BYTES),
        };
        reader.head(file_bytes)
    }
}

struct HeadReader<'a> {
    path: &'a Path,
    input: BufReader<&'a File>,
    position: u64,
    /// Nothing is read past this: the end of the file, or the most a head may take.
    end: u64,
}

impl HeadReader<'_> {
    fn head(&mut self, file_bytes: u64) -> Result<GgufHead, ModelFileError> {
        if self.array::<4>("magic")? != *b"GGUF" {
            return Err(self.malformed("not a GGUF file"));
        }
        let version = self.u32("version")?;
        if !(2..=3).contains(&version) {
            return Err(ModelFileError::unsupported(self.path, format!("GGUF version {version}")));
        }
        // An entry takes at least 13 bytes, so these two cannot ask for more than the head holds.
        let tensor_count = self.count("tensor count", MAX_ENTRIES)?;
        let metadata_count = self.count("metadata count", MAX_ENTRIES)?;

        let mut metadata = HashMap::new();
        for _ in 0..metadata_count {
            let key = self.text("metadata key", MAX_NAME_BYTES)?;
            let value = self.value(&key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(ModelFileError::key(self.path, &quoted(&key), "occurs twice"));
            }
        }
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..tensor_count {
            let (name, tensor) = self.tensor()?;
            if !seen.insert(name.clone()) {
                return Err(ModelFileError::tensor(self.path, &quoted(&name), "occurs twice"));
            }
            entries.push((name, tensor));
        }
        let alignment = self.alignment(&metadata)?;
        let data_start = self.position.div_ceil(alignment) * alignment;
        self.place(&mut entries, data_start, alignment, file_bytes)?;
        Ok(GgufHead { metadata, tensors: entries.into_iter().collect() })
    }

    fn alignment(&self, metadata: &HashMap<String, GgufValue>) -> Result<u64, ModelFileError> {
        let key = "general.alignment";
        match metadata.get(key) {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(GgufValue::Integer(value)) if (1..=1 << 20).contains(value) && value.count_ones() == 1 => {
                Ok(*value as u64)
            }
            Some(other) => Err(ModelFileError::key(self.path, key, format!("{other:?} is not a usable alignment"))),
        }
    }

    /// Makes offsets absolute and holds them against the file and against each other.
    fn place(
        &self,
        entries: &mut [(String, GgufTensor)],
        data_start: u64,
        alignment: u64,
        file_bytes: u64,
    ) -> Result<(), ModelFileError> {
        for (name, tensor) in entries.iter_mut() {
            let refuse = |reason: String| ModelFileError::tensor(self.path, &quoted(name), reason);
            if !tensor.begin.is_multiple_of(alignment) {
                return Err(refuse(format!("offset {} is not a multiple of {alignment}", tensor.begin)));
            }
            let begin = tensor.begin.checked_add(data_start);
            let end = begin.and_then(|begin| begin.checked_add(tensor.bytes));
            match (begin, end) {
                (Some(begin), Some(end)) if end <= file_bytes => tensor.begin = begin,
                _ => {
                    let (bytes, offset) = (tensor.bytes, tensor.begin);
                    return Err(refuse(format!(
                        "{bytes} bytes at offset {offset} reach past the end of the file, which has {file_bytes} bytes"
                    )));
                }
            }
        }
        let mut by_place: Vec<&(String, GgufTensor)> = entries.iter().collect();
        by_place.sort_by_key(|(_, tensor)| tensor.begin);
        for pair in by_place.windows(2) {
            let ((first_name, first), (second_name, second)) = (pair[0], pair[1]);
            if first.begin + first.bytes > second.begin {
                let reason = format!("overlaps tensor `{}`", quoted(first_name));
                return Err(ModelFileError::tensor(self.path, &quoted(second_name), reason));
            }
        }
        Ok(())
    }

    fn tensor(&mut self) -> Result<(String, GgufTensor), ModelFileError> {
        let name = self.text("tensor name", MAX_NAME_BYTES)?;
        let dimensions = self.u32("tensor dimensions")?;
        let path = self.path;
        let refuse = |reason: String| ModelFileError::tensor(path, &quoted(&name), reason);
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(refuse(format!("{dimensions} dimensions; between 1 and {MAX_DIMENSIONS} are allowed")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        let mut elements: u64 = 1;
        for _ in 0..dimensions {
            let size = self.u64("tensor shape")?;
            elements = elements
                .checked_mul(size)
                .filter(|elements| *elements > 0 && *elements <= u64::MAX / 8)
                .ok_or_else(|| refuse(format!("dimension {size} makes no sense")))?;
            // No truncation: the product fits in 61 bits and every factor is at most the product.
            shape.push(size as usize);
        }
        let row = shape[0] as u64;
        shape.reverse();
        let code = self.u32("tensor type")?;
        let begin = self.u64("tensor offset")?;
        let stored_as = StoredAs::from_ggml(code)
            .ok_or_else(|| refuse(format!("stored in GGML type {code}, which is not supported")))?;
        if !row.is_multiple_of(stored_as.block_elements() as u64) {
            let block = stored_as.block_elements();
            return Err(refuse(format!("rows of {row} numbers do not fill blocks of {block}")));
        }
        let bytes = stored_as.bytes_for(elements).ok_or_else(|| refuse("too large".to_owned()))?;
        Ok((name, GgufTensor { shape, stored_as, begin, bytes }))
    }

    fn value(&mut self, key: &str) -> Result<GgufValue, ModelFileError> {
        let kind = self.u32("value type")?;
        Ok(match kind {
            0..=5 | 10 | 11 => GgufValue::Integer(self.integer(kind)?),
            6 => GgufValue::Float(f64::from(f32::from_le_bytes(self.array("value")?))),
            7 => match self.array::<1>("value")?[0] {
                0 => GgufValue::Bool(false),
                1 => GgufValue::Bool(true),
                other => return Err(self.key(key, format!("{other} is not a truth value"))),
            },
            8 => GgufValue::Text(self.text(key, MAX_HEAD_BYTES)?),
            9 => self.array_value(key)?,
            12 => GgufValue::Float(f64::from_le_bytes(self.array("value")?)),
            other => return Err(self.key(key, format!("value type {other} is unknown"))),
        })
    }

    fn integer(&mut self, kind: u32) -> Result<i128, ModelFileError> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array("value")?).into(),
            1 => i8::from_le_bytes(self.array("value")?).into(),
            2 => u16::from_le_bytes(self.array("value")?).into(),
            3 => i16::from_le_bytes(self.array("value")?).into(),
            4 => u32::from_le_bytes(self.array("value")?).into(),
            5 => i32::from_le_bytes(self.array("value")?).into(),
            10 => u64::from_le_bytes(self.array("value")?).into(),
            _ => i64::from_le_bytes(self.array("value")?).into(),
        })
    }

    fn array_value(&mut self, key: &str) -> Result<GgufValue, ModelFileError> {
        let kind = self.u32("element type")?;
        let element_bytes: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(self.key(key, "arrays inside arrays are not supported")),
            other => return Err(self.key(key, format!("element type {other} is unknown"))),
        };
        let length = self.u64("array length")?;
        let left = self.end - self.position;
        if length.checked_mul(element_bytes).is_none_or(|needed| needed > left) {
            return Err(
                self.key(key, format!("an array of {length} elements does not fit in what is left of the file"))
            );
        }
        Ok(match kind {
            8 => {
                let mut texts = Vec::new();
                for _ in 0..length {
                    texts.push(self.text(key, MAX_HEAD_BYTES)?);
                }
                GgufValue::Texts(texts)
            }
            2..=5 | 10 | 11 => {
                let mut integers = Vec::new();
                for _ in 0..length {
                    let value = self.integer(kind)?;
                    integers.push(i64::try_from(value).map_err(|_| self.key(key, format!("{value} is too large")))?);
                }
                GgufValue::Integers(integers)
            }
            6 => {
                let mut floats = Vec::new();
                for _ in 0..length {
                    floats.push(f32::from_le_bytes(self.array(key)?));
                }
                GgufValue::Floats(floats)
            }
            _ => {
                self.skip(length * element_bytes, key)?;
                GgufValue::Unused
            }
        })
    }

    fn count(&mut self, what: &str, most: u64) -> Result<u64, ModelFileError> {
        let count = self.u64(what)?;
        if count > most {
            return Err(self.malformed(format!("{what} {count} is more than {most}")));
        }
        Ok(count)
    }

    fn text(&mut self, what: &str, most: u64) -> Result<String, ModelFileError> {
        let length = self.u64(what)?;
        let left = self.end - self.position;
        if length > most || length > left {
            return Err(self.malformed(format!(
                "{}: a text of {length} bytes at byte {} is longer than allowed or than the file",
                quoted(what),
                self.position
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| self.malformed(format!("{}: text is not UTF-8", quoted(what))))
    }

    fn u32(&mut self, what: &str) -> Result<u32, ModelFileError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, ModelFileError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ModelFileError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<(), ModelFileError> {
        let wanted = bytes.len() as u64;
        if wanted > self.end - self.position {
            return Err(self.malformed(format!("ends at byte {} inside {}", self.end, quoted(what))));
        }
        self.input.read_exact(bytes).map_err(|source| ModelFileError::read(self.path, source))?;
        self.position += wanted;
        Ok(())
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Result<(), ModelFileError> {
        let mut left = bytes;
        let mut scrap = [0; 4096];
        while left > 0 {
            let now = left.min(scrap.len() as u64) as usize;
            self.fill(&mut scrap[..now], what)?;
            left -= now as u64;
        }
        Ok(())
    }

    fn malformed(&self, reason: impl Into<String>) -> ModelFileError {
        ModelFileError::malformed(self.path, reason)
    }

    fn key(&self, key: &str, reason: impl Into<String>) -> ModelFileError {
        ModelFileError::key(self.path, &quoted(key), reason)
    }
}
