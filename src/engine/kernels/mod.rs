//! The arithmetic of the engine, and of the guard's encoder: 8-bit and `f32` matrix products, attention, LoRA and what
//! goes between them, for several CPU instruction sets and a fixed team of threads.
//!
//! Three laws hold for everything in here.
//! - **A row's result depends on that row only**, not on the other rows of the call, nor on the number of threads:
//!   every sum is formed in an order that is fixed by the shape of the model.
//! - **All instruction sets give the same bits.** A kernel is one generic source (`simd.rs`) compiled for each.
//! - **The interface is safe.** All `unsafe` of the project is in three files: the two instruction sets (`avx512.rs`,
//!   `avx2.rs`) and the threads (`team.rs`).
//!
//! What a model is, how its layers follow each other and where the weights come from is not known here. Functions
//! check the lengths they are given and panic when these do not fit: a caller that validated its shapes when it loaded
//! the model cannot get them wrong later.

#![expect(unsafe_code, reason = "the one folder that may: instruction sets and threads")]

mod activation;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod encoder;
mod isa;
mod kv;
mod linear;
mod lora;
mod matrix;
mod plain;
mod simd;
mod team;
#[cfg(test)]
mod tests;
mod vector;

pub use activation::Activation;
pub use attention::Attention;
pub use encoder::{Curve, LayerNorm};
pub use isa::Isa;
pub use kv::{BLOCK_TOKENS, KvBlock, KvShape};
pub use lora::LoraPair;
pub use matrix::{LayoutError, Matrix};
pub use team::Team;

/// Consecutive inputs that share a scale on the fast path, in weights and in activations. Of the sizes measured it
/// is the one nearest to bf16; 64 would be 10 to 15 % quicker and visibly less accurate.
pub const BLOCK: usize = 32;

/// Which of the two numeric paths a model runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `f32` throughout.
    Exact,
    /// 8-bit weights and activations with a scale per [`BLOCK`], bf16 adapters, f16 cache.
    Fast,
}
