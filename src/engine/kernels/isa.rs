//! Which instructions to compute with: found out once, then passed along as a value.
//!
//! It is a value and not a global so that a test can run the same work on every instruction set of the machine.

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};
use super::{
    plain::Plain,
    simd::{Kernel, Simd},
};

/// An instruction set this processor has. All of them give the same bits; they differ in speed.
#[derive(Clone, Copy)]
pub struct Isa(Set);

#[derive(Clone, Copy)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Plain(Plain),
}

impl Isa {
    /// The fastest one.
    pub fn detect() -> Self {
        Self::available().next().expect("the plain instruction set is always there")
    }

    /// All of them, the fastest first and the plain twin last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = [Avx512::detect().map(Set::Avx512), Avx2::detect().map(Set::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let special: [Option<Set>; 0] = [];
        special.into_iter().flatten().chain([Set::Plain(Plain)]).map(Self)
    }

    /// The portable twin of the others.
    pub fn plain() -> Self {
        Self(Set::Plain(Plain))
    }

    /// A name for logs: `avx512`, `avx2` or `plain`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "avx2",
            Set::Plain(_) => "plain",
        }
    }

    /// Query heads worth computing together in attention.
    pub(super) fn tile_heads(self) -> usize {
        fn of<S: Simd>(_: S) -> usize {
            S::TILE_HEADS
        }
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(simd) => of(simd),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(simd) => of(simd),
            Set::Plain(simd) => of(simd),
        }
    }

    /// Runs `kernel` as compiled for this instruction set.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(simd) => simd.run(kernel),
            Set::Plain(simd) => simd.run(kernel),
        }
    }
}

impl std::fmt::Debug for Isa {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
