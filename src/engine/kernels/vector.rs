//! What happens to a row between two matrices.
//!
//! These are methods of [`Isa`], as they need nothing else: no threads (a row is too small to share) and no state.

use super::{
    Isa,
    simd::{Kernel, LANES, Simd, exp, load_part, store_part},
};

impl Isa {
    /// Root-mean-square norm: `out = x / sqrt(mean(x²) + eps) * weight`.
    pub fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert!(!x.is_empty() && x.len() == weight.len() && x.len() == out.len(), "a norm keeps its length");
        let mean = self.dot(x, x) / x.len() as f32;
        let inverse = 1.0 / (mean + eps).sqrt();
        self.run(Norm { x, weight, inverse, out });
    }

    /// The gate of a feed-forward layer: `out = silu(gate) * up`, with `silu(g) = g / (1 + exp(-g))`.
    pub fn swiglu(self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && gate.len() == out.len(), "a gate keeps its length");
        self.run(Swiglu { gate, up, out });
    }

    /// `x += y`
    pub fn add_assign(self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "a sum has terms of one length");
        self.run(AddAssign { x, y });
    }

    /// Rotary position embedding of one head, in the convention of Hugging Face: element `i` of the first half is
    /// rotated with element `i` of the second. `cos` and `sin` have half the length of the head.
    pub fn rope(self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(cos.len() == sin.len() && head.len() == 2 * cos.len(), "an angle for each pair of a head");
        self.run(Rope { head, cos, sin });
    }

    /// The dot product.
    pub fn dot(self, x: &[f32], y: &[f32]) -> f32 {
        assert_eq!(x.len(), y.len(), "a product has factors of one length");
        self.run(Dot { x, y })
    }

    /// Where the largest value is; the first if there are several. NaN is never the largest, and a row of nothing
    /// else gives 0.
    pub fn argmax(self, values: &[f32]) -> usize {
        assert!(!values.is_empty(), "nothing is not the largest of anything");
        self.run(Argmax { values })
    }
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    inverse: f32,
    out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let inverse = simd.splat(self.inverse);
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (weight, weight_rest) = self.weight.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((x, weight), out) in x.iter().zip(weight).zip(out) {
            let normed = simd.mul(simd.load(x), inverse);
            simd.store(simd.mul(normed, simd.load(weight)), out);
        }
        let normed = simd.mul(load_part(simd, x_rest), inverse);
        store_part(simd, simd.mul(normed, load_part(simd, weight_rest)), out_rest);
    }
}

struct Swiglu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Swiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gate, gate_rest) = self.gate.as_chunks::<LANES>();
        let (up, up_rest) = self.up.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            let gated = silu(simd, simd.load(gate));
            simd.store(simd.mul(gated, simd.load(up)), out);
        }
        if !out_rest.is_empty() {
            let gated = silu(simd, load_part(simd, gate_rest));
            store_part(simd, simd.mul(gated, load_part(simd, up_rest)), out_rest);
        }
    }
}

#[inline(always)]
fn silu<S: Simd>(simd: S, gate: S::F) -> S::F {
    let negative = simd.sub(simd.splat(0.0), gate);
    simd.div(gate, simd.add(simd.splat(1.0), exp(simd, negative)))
}

struct AddAssign<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for AddAssign<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (x, x_rest) = self.x.as_chunks_mut::<LANES>();
        let (y, y_rest) = self.y.as_chunks::<LANES>();
        for (x, y) in x.iter_mut().zip(y) {
            simd.store(simd.add(simd.load(x), simd.load(y)), x);
        }
        for (x, y) in x_rest.iter_mut().zip(y_rest) {
            *x += y;
        }
    }
}

struct Rope<'a> {
    head: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (first, second) = self.head.split_at_mut(self.cos.len());
        let (first, first_rest) = first.as_chunks_mut::<LANES>();
        let (second, second_rest) = second.as_chunks_mut::<LANES>();
        let (cos, cos_rest) = self.cos.as_chunks::<LANES>();
        let (sin, sin_rest) = self.sin.as_chunks::<LANES>();
        for (((first, second), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let (a, b) = (simd.load(first), simd.load(second));
            let (cos, sin) = (simd.load(cos), simd.load(sin));
            simd.store(simd.sub(simd.mul(a, cos), simd.mul(b, sin)), first);
            simd.store(simd.add(simd.mul(b, cos), simd.mul(a, sin)), second);
        }
        for (((first, second), cos), sin) in first_rest.iter_mut().zip(second_rest).zip(cos_rest).zip(sin_rest) {
            let (a, b) = (*first, *second);
            *first = a * cos - b * sin;
            *second = b * cos + a * sin;
        }
    }
}

struct Dot<'a> {
    x: &'a [f32],
    y: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;

    /// Four sums of vectors in turn, because one alone would wait for itself at every step.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        const TURNS: usize = 4;
        let mut sums = [simd.splat(0.0); TURNS];
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (y, y_rest) = self.y.as_chunks::<LANES>();
        let (x_turns, x_last) = x.as_chunks::<TURNS>();
        let (y_turns, y_last) = y.as_chunks::<TURNS>();
        for (x, y) in x_turns.iter().zip(y_turns) {
            for turn in 0..TURNS {
                sums[turn] = simd.fma(simd.load(&x[turn]), simd.load(&y[turn]), sums[turn]);
            }
        }
        for (x, y) in x_last.iter().zip(y_last) {
            sums[0] = simd.fma(simd.load(x), simd.load(y), sums[0]);
        }
        sums[1] = simd.fma(load_part(simd, x_rest), load_part(simd, y_rest), sums[1]);
        simd.sum(simd.add(simd.add(sums[0], sums[2]), simd.add(sums[1], sums[3])))
    }
}

struct Argmax<'a> {
    values: &'a [f32],
}

impl Kernel for Argmax<'_> {
    type Output = usize;

    /// Finds the stretch that first reaches the maximum by vectors, then the place within it.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        const STRETCH: usize = 32 * LANES;
        let mut best = f32::NEG_INFINITY;
        let mut from = 0;
        for (index, stretch) in self.values.chunks(STRETCH).enumerate() {
            let largest = largest(simd, stretch);
            if largest > best {
                best = largest;
                from = index * STRETCH;
            }
        }
        let place = self.values[from..].iter().position(|value| *value == best);
        place.map_or(0, |place| from + place)
    }
}

/// The largest value that is not NaN, or minus infinity.
#[inline(always)]
pub(super) fn largest<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let mut largest = simd.splat(f32::NEG_INFINITY);
    let (vectors, rest) = values.as_chunks::<LANES>();
    for vector in vectors {
        largest = simd.max(simd.load(vector), largest);
    }
    let mut lanes = [0.0; LANES];
    simd.store(largest, &mut lanes);
    let mut largest = f32::NEG_INFINITY;
    for value in lanes.iter().chain(rest) {
        if *value > largest {
            largest = *value;
        }
    }
    largest
}
