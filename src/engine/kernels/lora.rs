//! One low-rank adapter of one matrix: `y += scale * B (A x)`.
//!
//! A is kept rank by rank, so that `A x` is `rank` dot products that share their loads of `x` and waste nothing
//! whatever the rank. B is kept in panels of [`PANEL`] outputs with the rank as the outer dimension, so that a result
//! stays in registers while all ranks are added to it. The scale is applied once, to the finished sum: it touches
//! neither the stored weights nor the intermediate result.

use super::{
    Isa, Precision,
    element::{Brain, Element, Full},
    matrix::{LayoutError, PANEL, check_dimension, check_finite, check_length},
    simd::{Kernel, LANES, Simd, load_part},
};

/// The two matrices of an adapter for one matrix of the model.
pub struct LoraPair {
    rank: usize,
    inputs: usize,
    outputs: usize,
    scale: f32,
    weights: Weights,
}

enum Weights {
    Exact(Packed<Full>),
    Fast(Packed<Brain>),
}

struct Packed<E: Element> {
    /// `rank` rows of the inputs, padded with zeroes to whole vectors.
    a: Vec<E::Bits>,
    /// Per panel `rank` rows of [`PANEL`] outputs, padded with zeroes.
    b: Vec<E::Bits>,
}

impl LoraPair {
    /// Packs row-major `a` (`rank x inputs`) and `b` (`outputs x rank`).
    pub fn pack(
        a: &[f32],
        b: &[f32],
        rank: usize,
        inputs: usize,
        outputs: usize,
        scale: f32,
        precision: Precision,
    ) -> Result<Self, LayoutError> {
        check_dimension("rank", rank, 1)?;
        check_dimension("inputs", inputs, 1)?;
        check_dimension("outputs", outputs, 1)?;
        check_length(a, rank, inputs)?;
        check_length(b, outputs, rank)?;
        check_finite(a, inputs)?;
        check_finite(b, rank)?;
        check_finite(&[scale], 1)?;
        let weights = match precision {
            Precision::Exact => Weights::Exact(Packed::new(a, b, rank, inputs, outputs)),
            Precision::Fast => Weights::Fast(Packed::new(a, b, rank, inputs, outputs)),
        };
        Ok(Self { rank, inputs, outputs, scale, weights })
    }

    /// How many values lie between A and B.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The length of what A is applied to.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The length of what B adds to.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Memory the packed weights take.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Exact(packed) => packed.bytes(),
            Weights::Fast(packed) => packed.bytes(),
        }
    }

    /// `t = A x`
    pub fn shrink(&self, isa: Isa, x: &[f32], t: &mut [f32]) {
        assert_eq!(x.len(), self.inputs, "A is as wide as its input is long");
        assert_eq!(t.len(), self.rank, "A has one row per rank");
        match &self.weights {
            Weights::Exact(packed) => isa.run(Shrink { packed, x, t }),
            Weights::Fast(packed) => isa.run(Shrink { packed, x, t }),
        }
    }

    /// `y += scale * B t`
    pub fn expand(&self, isa: Isa, t: &[f32], y: &mut [f32]) {
        assert_eq!(t.len(), self.rank, "B has one column per rank");
        assert_eq!(y.len(), self.outputs, "B is as high as its output is long");
        let scale = self.scale;
        match &self.weights {
            Weights::Exact(packed) => isa.run(Expand { packed, scale, t, y }),
            Weights::Fast(packed) => isa.run(Expand { packed, scale, t, y }),
        }
    }
}

impl std::fmt::Debug for LoraPair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LoraPair")
            .field("rank", &self.rank)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

// === impl Packed ===

impl<E: Element> Packed<E> {
    fn new(a: &[f32], b: &[f32], rank: usize, inputs: usize, outputs: usize) -> Self {
        let zero = E::encode(0.0);
        let width = inputs.next_multiple_of(LANES);
        let mut packed_a = vec![zero; rank * width];
        for (to, from) in packed_a.chunks_exact_mut(width).zip(a.chunks_exact(inputs)) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = E::encode(*from);
            }
        }
        let mut packed_b = vec![zero; outputs.next_multiple_of(PANEL) * rank];
        for (output, row) in b.chunks_exact(rank).enumerate() {
            let panel = &mut packed_b[output / PANEL * PANEL * rank..];
            for (r, value) in row.iter().enumerate() {
                panel[r * PANEL + output % PANEL] = E::encode(*value);
            }
        }
        Self { a: packed_a, b: packed_b }
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.a[..]) + size_of_val(&self.b[..])
    }
}

struct Shrink<'a, E: Element> {
    packed: &'a Packed<E>,
    x: &'a [f32],
    t: &'a mut [f32],
}

impl<E: Element> Kernel for Shrink<'_, E> {
    type Output = ();

    /// Takes ranks by eight while it can: that many sums hide the latency of the additions.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.x.len().next_multiple_of(LANES);
        let mut a = &self.packed.a[..];
        let mut t = self.t;
        while t.len() >= 8 {
            (a, t) = some_ranks::<S, E, 8>(simd, a, width, self.x, t);
        }
        if t.len() >= 4 {
            (a, t) = some_ranks::<S, E, 4>(simd, a, width, self.x, t);
        }
        if t.len() >= 2 {
            (a, t) = some_ranks::<S, E, 2>(simd, a, width, self.x, t);
        }
        if !t.is_empty() {
            some_ranks::<S, E, 1>(simd, a, width, self.x, t);
        }
    }
}

/// Computes the first `N` values of `t` and returns what is left of `a` and `t`. How many are taken together makes
/// no difference to their values.
#[inline(always)]
fn some_ranks<'a, 't, S: Simd, E: Element, const N: usize>(
    simd: S,
    a: &'a [E::Bits],
    width: usize,
    x: &[f32],
    t: &'t mut [f32],
) -> (&'a [E::Bits], &'t mut [f32]) {
    let (own, rest) = a.split_at(N * width);
    let mut rows: [&[[E::Bits; LANES]]; N] = [&[]; N];
    for (row, values) in rows.iter_mut().zip(own.chunks_exact(width)) {
        *row = values.as_chunks().0;
    }
    let mut sums = [simd.splat(0.0); N];
    let (vectors, x_rest) = x.as_chunks::<LANES>();
    for (index, vector) in vectors.iter().enumerate() {
        let x = simd.load(vector);
        for n in 0..N {
            sums[n] = simd.fma(E::load(simd, &rows[n][index]), x, sums[n]);
        }
    }
    if !x_rest.is_empty() {
        let x = load_part(simd, x_rest);
        for n in 0..N {
            sums[n] = simd.fma(E::load(simd, &rows[n][vectors.len()]), x, sums[n]);
        }
    }
    let (own, t) = t.split_at_mut(N);
    for n in 0..N {
        own[n] = simd.sum(sums[n]);
    }
    (rest, t)
}

struct Expand<'a, E: Element> {
    packed: &'a Packed<E>,
    scale: f32,
    t: &'a [f32],
    y: &'a mut [f32],
}

impl<E: Element> Kernel for Expand<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scale = simd.splat(self.scale);
        let panels = self.packed.b.chunks_exact(PANEL * self.t.len());
        for (y, panel) in self.y.chunks_mut(PANEL).zip(panels) {
            let mut sums = [simd.splat(0.0); PANEL / LANES];
            let (rows, _) = panel.as_chunks::<LANES>();
            let (rows, _) = rows.as_chunks::<{ PANEL / LANES }>();
            for (row, t) in rows.iter().zip(self.t) {
                let t = simd.splat(*t);
                for (sum, vector) in sums.iter_mut().zip(row) {
                    *sum = simd.fma(E::load(simd, vector), t, *sum);
                }
            }
            for (y, sum) in y.chunks_mut(LANES).zip(sums) {
                add_scaled(simd, sum, scale, y);
            }
        }
    }
}

#[inline(always)]
fn add_scaled<S: Simd>(simd: S, sum: S::F, scale: S::F, y: &mut [f32]) {
    if let Some(y) = y.as_mut_array::<LANES>() {
        simd.store(simd.fma(sum, scale, simd.load(y)), y);
    } else {
        let value = simd.fma(sum, scale, load_part(simd, y));
        super::simd::store_part(simd, value, y);
    }
}
