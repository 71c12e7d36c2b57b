use half::f16;
use proptest::prelude::*;

use super::{
    super::{Attention, BLOCK_TOKENS, Isa, KvBlock, KvShape, Precision},
    Numbers, assert_close, bits,
};

/// A sequence in the cache and the keys and values that were put there, of one layer.
#[expect(clippy::vec_box, reason = "as the engine keeps them: a block moves between sequences without being copied")]
struct Sequence {
    shape: KvShape,
    precision: Precision,
    blocks: Vec<Box<KvBlock>>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

const LAYER: usize = 1;

impl Sequence {
    /// `stale` is what unused slots of the layer hold.
    fn new(kv_heads: usize, head_dim: usize, length: usize, precision: Precision, stale: f32) -> Self {
        let shape = KvShape::new(3, kv_heads, head_dim).expect("a shape");
        let width = kv_heads * head_dim;
        let mut numbers = Numbers::new(length as u64);
        let mut sequence = Self { shape, precision, blocks: Vec::new(), keys: Vec::new(), values: Vec::new() };
        for position in 0..length {
            if position % BLOCK_TOKENS == 0 {
                let mut block = Box::new(KvBlock::new(&sequence.shape, precision));
                for slot in 0..BLOCK_TOKENS {
                    for layer in 0..3 {
                        let stale = vec![stale; width];
                        block.store(Isa::detect(), &sequence.shape, layer, slot, &stale, &stale);
                    }
                }
                sequence.blocks.push(block);
            }
            let (keys, values) = (numbers.many(width), numbers.many(width));
            let block = sequence.blocks.last_mut().expect("just made");
            block.store(Isa::detect(), &sequence.shape, LAYER, position % BLOCK_TOKENS, &keys, &values);
            sequence.keys.push(keys);
            sequence.values.push(values);
        }
        sequence
    }

    fn attention(&self, positions: usize, heads: usize) -> Attention<'_, Box<KvBlock>> {
        let scale = 1.0 / (self.shape.head_dim() as f32).sqrt();
        Attention { shape: &self.shape, layer: LAYER, blocks: &self.blocks, positions, heads, scale }
    }

    fn attend(&self, isa: Isa, positions: usize, heads: usize, queries: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; queries.len()];
        self.attention(positions, heads).attend(isa, queries, &mut vec![f32::NAN; 7], &mut out);
        out
    }

    fn reference(&self, positions: usize, heads: usize, queries: &[f32]) -> Vec<f64> {
        let head_dim = self.shape.head_dim();
        let group = heads / self.shape.kv_heads();
        let stored = |value: f32| {
            f64::from(if self.precision == Precision::Fast { f16::from_f32(value).to_f32() } else { value })
        };
        let mut out = Vec::new();
        for (head, query) in queries.chunks_exact(head_dim).enumerate() {
            let own = head / group * head_dim;
            let score = |keys: &Vec<f32>| {
                let dot: f64 = (0..head_dim).map(|d| f64::from(query[d]) * stored(keys[own + d])).sum();
                dot / (head_dim as f64).sqrt()
            };
            let scores: Vec<f64> = self.keys[..positions].iter().map(score).collect();
            let highest = scores.iter().fold(f64::MIN, |highest, score| highest.max(*score));
            let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..head_dim {
                let sum: f64 = weights.iter().zip(&self.values).map(|(w, v)| w * stored(v[own + d])).sum();
                out.push(sum / total);
            }
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn attention_is_near_the_formula_and_the_same_on_all_instructions(
        kv_heads in 1usize..4, group in 1usize..10, head_dim in prop::sample::select(vec![16, 32, 48, 64, 80, 96, 112, 128]),
        positions in 1usize..100, more in 0usize..40, fast: bool
    ) {
        let precision = if fast { Precision::Fast } else { Precision::Exact };
        let sequence = Sequence::new(kv_heads, head_dim, positions + more, precision, 0.0);
        let heads = kv_heads * group;
        let queries = Numbers::new(9).many(heads * head_dim);
        let found = sequence.attend(Isa::plain(), positions, heads, &queries);
        assert_close(&found, &sequence.reference(positions, heads, &queries), 2e-6);
        for isa in Isa::available() {
            prop_assert_eq!(bits(&sequence.attend(isa, positions, heads, &queries)), bits(&found));
        }
    }
}

#[test]
fn stale_slots_and_blocks_beyond_do_not_matter() {
    let queries = Numbers::new(9).many(6 * 64);
    for precision in [Precision::Exact, Precision::Fast] {
        for length in [1, 15, 16, 17, 37] {
            let clean = Sequence::new(2, 64, length, precision, 0.0);
            for stale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
                let stale = Sequence::new(2, 64, length, precision, stale);
                for isa in Isa::available() {
                    let (clean, stale) =
                        (clean.attend(isa, length, 6, &queries), stale.attend(isa, length, 6, &queries));
                    assert_eq!(bits(&stale), bits(&clean), "{precision:?}, {length} positions, {isa:?}");
                }
            }
        }
    }
}

#[test]
fn later_positions_do_not_change_what_an_earlier_row_sees() {
    let queries = Numbers::new(9).many(6 * 32);
    let sequence = Sequence::new(2, 32, 50, Precision::Fast, 0.0);
    let isa = Isa::detect();
    let early = sequence.attend(isa, 20, 6, &queries);
    let mut shorter = Sequence::new(2, 32, 20, Precision::Fast, 0.0);
    for (position, (keys, values)) in sequence.keys.iter().zip(&sequence.values).enumerate().take(20) {
        let block = &mut shorter.blocks[position / BLOCK_TOKENS];
        block.store(isa, &sequence.shape, LAYER, position % BLOCK_TOKENS, keys, values);
    }
    assert_eq!(bits(&early), bits(&shorter.attend(isa, 20, 6, &queries)));
}

#[test]
fn heads_may_be_shared_out() {
    let sequence = Sequence::new(3, 48, 33, Precision::Fast, 0.0);
    let queries = Numbers::new(9).many(9 * 48);
    let isa = Isa::detect();
    let whole = sequence.attend(isa, 33, 9, &queries);
    let mut parts = vec![0.0; whole.len()];
    let (first, rest) = parts.split_at_mut(3 * 48);
    let attention = sequence.attention(33, 9);
    attention.attend_heads(isa, 0..1, &queries[..3 * 48], &mut Vec::new(), first);
    attention.attend_heads(isa, 1..3, &queries[3 * 48..], &mut Vec::new(), rest);
    assert_eq!(bits(&parts), bits(&whole));
}

#[test]
fn large_scores_do_not_overflow() {
    let mut sequence = Sequence::new(1, 16, 20, Precision::Fast, 0.0);
    for position in 0..20 {
        let keys = vec![position as f32 * 1e6; 16];
        let block = &mut sequence.blocks[position / BLOCK_TOKENS];
        block.store(Isa::detect(), &sequence.shape, LAYER, position % BLOCK_TOKENS, &keys, &[position as f32; 16]);
    }
    for isa in Isa::available() {
        let out = sequence.attend(isa, 20, 1, &[1e4; 16]);
        // All positions but the first are at the largest f16, so they share the weight.
        assert_close(&out, &[10.0; 16], 1e-4);
    }
}

#[test]
fn block_takes_what_its_shape_says() {
    let shape = KvShape::new(30, 3, 64).expect("a shape");
    assert_eq!(shape.block_bytes(Precision::Fast), 30 * 3 * 64 * 2 * 16 * 2);
    assert_eq!(shape.block_bytes(Precision::Exact), 30 * 3 * 64 * 2 * 16 * 4);
    assert!(KvShape::new(30, 3, 40).is_err());
}
