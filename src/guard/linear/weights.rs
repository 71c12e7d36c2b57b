//! The file of weights, and the arithmetic on it.
//!
//! Little-endian: `TGL1`; bits of the toxic table's buckets and of the categories'
//! (a byte each), the number of categories, a zero; then scale and bias (32-bit
//! floats) of the toxic head and of each category; then the toxic table, a byte with
//! sign for each bucket, and the categories' table, for each bucket one byte for each
//! category. `scripts/guard/train_stage1.py` writes it.
//!
//! A byte `b` stands for `b·|b|` times the scale: a few weights are a thousand times
//! the many, and 8 bits in equal steps would round these away.

use super::Category;

const MAGIC: &[u8] = b"TGL1";
const CATEGORIES: usize = Category::ALL.len();
const HEADER: usize = 8 + 8 * (1 + CATEGORIES);

#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'file> {
    toxic: &'file [u8],
    toxic_shift: u32,
    categories: &'file [[u8; CATEGORIES]],
    categories_shift: u32,
    /// Scale and bias, of the toxic head and then of the categories.
    heads: [(f32, f32); 1 + CATEGORIES],
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Head {
    Toxic,
    Category(usize),
}

// === impl Weights ===

impl Weights<'static> {
    pub(super) fn embedded() -> Self {
        static FILE: &[u8] = include_bytes!("../weights/stage1.bin");
        Self::parse(FILE).expect("the weights in the binary were read by the tests")
    }
}

impl<'file> Weights<'file> {
    /// `None` for what is not a file of weights.
    pub(super) fn parse(file: &'file [u8]) -> Option<Self> {
        let (header, tables) = file.split_at_checked(HEADER)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        let (&[toxic_bits, categories_bits, categories, 0], numbers) = rest.split_first_chunk::<4>()? else {
            return None;
        };
        let bits = 8..=24;
        let sound = magic == MAGIC && usize::from(categories) == CATEGORIES;
        if !sound || !bits.contains(&toxic_bits) || !bits.contains(&categories_bits) {
            return None;
        }
        let mut heads = [(0.0, 0.0); 1 + CATEGORIES];
        for (head, bytes) in heads.iter_mut().zip(numbers.as_chunks::<8>().0) {
            let [a, b, c, d, e, f, g, h] = *bytes;
            *head = (f32::from_le_bytes([a, b, c, d]), f32::from_le_bytes([e, f, g, h]));
        }
        let (toxic, categories) = tables.split_at_checked(1 << toxic_bits)?;
        let (categories, rest) = categories.as_chunks::<CATEGORIES>();
        if !rest.is_empty() || categories.len() != 1 << categories_bits {
            return None;
        }
        let shift = |bits: u8| 32 - u32::from(bits);
        let (toxic_shift, categories_shift) = (shift(toxic_bits), shift(categories_bits));
        Some(Self { toxic, toxic_shift, categories, categories_shift, heads })
    }

    /// The sum of the toxic head's weights for the hashes.
    pub(super) fn toxic_sum(&self, hashes: &[u32]) -> i32 {
        hashes.iter().map(|&hash| squared(self.toxic[(hash >> self.toxic_shift) as usize])).sum()
    }

    /// How likely a toxic text with these features is of each category.
    pub(super) fn categories(&self, hashes: &[u32]) -> [f32; CATEGORIES] {
        let mut sums = [0_i32; CATEGORIES];
        for &hash in hashes {
            let weights = self.categories[(hash >> self.categories_shift) as usize];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += squared(weight);
            }
        }
        std::array::from_fn(|at| self.logistic(Head::Category(at), sums[at], hashes.len() as u32))
    }

    /// The logistic function of a sum over so many weights.
    pub(super) fn logistic(&self, head: Head, sum: i32, count: u32) -> f32 {
        let (scale, bias) = match head {
            Head::Toxic => self.heads[0],
            Head::Category(at) => self.heads[1 + at],
        };
        let logit = scale * sum as f32 / (count.max(1) as f32).sqrt() + bias;
        1.0 / (1.0 + (-logit).exp())
    }
}

fn squared(weight: u8) -> i32 {
    let weight = i32::from(weight as i8);
    weight * weight.abs()
}
