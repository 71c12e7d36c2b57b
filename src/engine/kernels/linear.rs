//! The product of rows with a matrix: where nearly all the time goes.
//!
//! Panels are split over the threads and taken in order. For each panel the rows go through in tiles of as many as
//! the registers hold, so a panel comes from memory once and from the cache after that. Up to one tile the product
//! is bound by memory, and the weights are asked for a little ahead of use. Beyond that it is bound by arithmetic;
//! the next panel is then fetched piecemeal while the first tiles are computed.
//!
//! A row's sums are formed the same way in every tile. On the fast path the products of a block are summed as
//! integers, which is exact in any order, and the blocks are added up first to last; on the exact path the inputs are.

use super::{
    Activation, Matrix, Team,
    activation::QuantBlock,
    matrix::{FloatStep, PANEL, PanelBlock, Panels},
    simd::{Kernel, LANES, Simd},
};

/// How far ahead of use weights are asked for while they stream from memory, in bytes: eight blocks. Into the second
/// level only, whose queue for outstanding lines is the longer one: asked into the first level, eight rows took a
/// quarter longer, because reading and computing did not overlap.
const STREAM_AHEAD: usize = 8 * size_of::<PanelBlock>();

const LINE: usize = 64;

impl Team {
    /// `outputs[r] = matrix * inputs[r]` for every row `r`. On the fast path the rows are quantised.
    pub fn linear(&mut self, matrix: &Matrix, inputs: &[&Activation], outputs: &mut [&mut [f32]]) {
        assert_eq!(inputs.len(), outputs.len(), "one output per input row");
        for (input, output) in inputs.iter().zip(outputs.iter()) {
            assert_eq!(input.len(), matrix.inputs(), "an input is as long as the matrix is wide");
            assert_eq!(output.len(), matrix.outputs(), "an output is as long as the matrix is high");
        }
        if inputs.is_empty() {
            return;
        }
        let isa = self.isa();
        let mut parts = split(matrix.outputs(), outputs, self.threads());
        match matrix.panels() {
            Panels::Exact(panels) => {
                let rows: Vec<&[f32]> = inputs.iter().map(|input| input.values()).collect();
                self.each(&mut parts, |_, part| {
                    isa.run(Product::<FloatStep> { panels, per_panel: matrix.inputs(), rows: &rows, part });
                });
            }
            Panels::Fast(panels) => {
                let rows: Vec<&[QuantBlock]> = inputs.iter().map(|input| input.blocks()).collect();
                let per_panel = rows[0].len();
                self.each(&mut parts, |_, part| {
                    isa.run(Product::<PanelBlock> { panels, per_panel, rows: &rows, part });
                });
            }
        }
    }
}

/// What one member computes: some panels of every row.
struct Part<'a> {
    first_panel: usize,
    /// Of each row the outputs of those panels.
    outputs: Vec<&'a mut [f32]>,
}

/// Cuts the outputs into one part per member, at panel boundaries.
fn split<'a>(length: usize, outputs: &'a mut [&mut [f32]], members: usize) -> Vec<Part<'a>> {
    let panels = length.div_ceil(PANEL);
    let members = members.min(panels);
    let mut parts: Vec<Part<'a>> = (0..members)
        .map(|member| Part { first_panel: panels * member / members, outputs: Vec::with_capacity(outputs.len()) })
        .collect();
    for output in outputs {
        let mut rest = &mut **output;
        for (member, part) in parts.iter_mut().enumerate() {
            let end = (panels * (member + 1) / members * PANEL).min(length);
            let (own, others) = rest.split_at_mut(end - part.first_panel * PANEL);
            part.outputs.push(own);
            rest = others;
        }
    }
    parts
}

/// One member's share of a product, with panels made of `W`.
struct Product<'a, 'b, W: Weights> {
    /// Those of the whole matrix.
    panels: &'a [W],
    per_panel: usize,
    rows: &'a [&'a [W::Input]],
    part: &'a mut Part<'b>,
}

impl<W: Weights> Kernel for Product<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let outputs = &mut self.part.outputs;
        let width = outputs[0].len();
        for (index, column) in (0..width).step_by(PANEL).enumerate() {
            let panel = self.part.first_panel + index;
            let panel = &self.panels[panel * self.per_panel..][..self.per_panel];
            let columns = column..width.min(column + PANEL);
            let mut first = 0;
            while first < self.rows.len() {
                let count = S::TILE_ROWS.min(self.rows.len() - first);
                let ahead = Ahead::choose(first / S::TILE_ROWS, self.rows.len() > S::TILE_ROWS);
                let tile = Work {
                    panel,
                    rows: &self.rows[first..first + count],
                    outputs: &mut outputs[first..first + count],
                    columns: columns.clone(),
                    ahead,
                };
                match count {
                    1 => simd.run(Tile::<W, 1>(tile)),
                    2 => simd.run(Tile::<W, 2>(tile)),
                    3 => simd.run(Tile::<W, 3>(tile)),
                    4 => simd.run(Tile::<W, 4>(tile)),
                    5 => simd.run(Tile::<W, 5>(tile)),
                    6 => simd.run(Tile::<W, 6>(tile)),
                    7 => simd.run(Tile::<W, 7>(tile)),
                    8 => simd.run(Tile::<W, 8>(tile)),
                    _ => unreachable!("a tile has at most eight rows"),
                }
                first += count;
            }
        }
    }
}

/// What to ask the memory for while a tile is computed.
#[derive(Clone, Copy)]
enum Ahead {
    /// What this tile reads next.
    Stream,
    /// One half of the next panel (0 or 1).
    NextPanel(usize),
    /// Nothing: the next panel is on its way already.
    Nothing,
}

impl Ahead {
    #[inline(always)]
    fn choose(tile: usize, more_tiles: bool) -> Self {
        match tile {
            _ if !more_tiles => Self::Stream,
            0 | 1 => Self::NextPanel(tile),
            _ => Self::Nothing,
        }
    }

    /// Asks for what is to be had while the weights at `now` are used; `panel` is how many of them a panel has.
    #[inline(always)]
    fn ask<S: Simd, W>(self, simd: S, now: &W, panel: usize) {
        let now = std::ptr::from_ref(now).cast::<u8>();
        let lines = size_of::<W>() / LINE;
        match self {
            Self::Stream => {
                for line in 0..lines {
                    simd.prefetch_far(now.wrapping_add(STREAM_AHEAD + line * LINE));
                }
            }
            Self::NextPanel(half) => {
                let middle = lines.div_ceil(2);
                let range = if half == 0 { 0..middle } else { middle..lines };
                for line in range {
                    simd.prefetch_far(now.wrapping_add(panel * size_of::<W>() + line * LINE));
                }
            }
            Self::Nothing => {}
        }
    }
}

/// The columns of one panel for a few rows.
struct Work<'a, 'b, W: Weights> {
    panel: &'a [W],
    rows: &'a [&'a [W::Input]],
    outputs: &'a mut [&'b mut [f32]],
    columns: std::ops::Range<usize>,
    ahead: Ahead,
}

/// A [`Work`] with as many rows as `R` says: the compiler keeps their sums in registers.
struct Tile<'a, 'b, W: Weights, const R: usize>(Work<'a, 'b, W>);

impl<W: Weights, const R: usize> Kernel for Tile<'_, '_, W, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Work { panel, rows, outputs, columns, ahead } = self.0;
        let mut inputs: [&[W::Input]; R] = [&[]; R];
        for (input, row) in inputs.iter_mut().zip(rows) {
            *input = &row[..panel.len()];
        }
        let sums = W::multiply(simd, panel, inputs, ahead);
        for (sums, output) in sums.into_iter().zip(outputs) {
            let output = &mut output[columns.clone()];
            // Straight to where it belongs, not by way of the stack.
            if let Ok(whole) = <&mut [f32; PANEL]>::try_from(&mut *output) {
                let (vectors, _) = whole.as_chunks_mut::<LANES>();
                for (sum, vector) in sums.into_iter().zip(vectors) {
                    simd.store(sum, vector);
                }
                continue;
            }
            let mut lanes = [[0.0; LANES]; PANEL / LANES];
            for (sum, lanes) in sums.into_iter().zip(&mut lanes) {
                simd.store(sum, lanes);
            }
            output.copy_from_slice(&lanes.as_flattened()[..output.len()]);
        }
    }
}

/// Sums of `R` rows with the outputs of a panel.
type Sums<S, const R: usize> = [[<S as Simd>::F; PANEL / LANES]; R];

/// What panels consist of.
trait Weights: Sync + Sized {
    /// What a row has for each of them.
    type Input: Sync;

    fn multiply<S: Simd, const R: usize>(
        simd: S,
        panel: &[Self],
        rows: [&[Self::Input]; R],
        ahead: Ahead,
    ) -> Sums<S, R>;
}

impl Weights for FloatStep {
    type Input = f32;

    #[inline(always)]
    fn multiply<S: Simd, const R: usize>(simd: S, panel: &[Self], rows: [&[f32]; R], ahead: Ahead) -> Sums<S, R> {
        let mut sums = [[simd.splat(0.0); 2]; R];
        for (input, step) in panel.iter().enumerate() {
            ahead.ask(simd, step, panel.len());
            let (weights, _) = step.0.as_chunks::<LANES>();
            let (low, high) = (simd.load(&weights[0]), simd.load(&weights[1]));
            for r in 0..R {
                let value = simd.splat(rows[r][input]);
                sums[r][0] = simd.fma(low, value, sums[r][0]);
                sums[r][1] = simd.fma(high, value, sums[r][1]);
            }
        }
        sums
    }
}

impl Weights for PanelBlock {
    type Input = QuantBlock;

    #[inline(always)]
    fn multiply<S: Simd, const R: usize>(
        simd: S,
        panel: &[Self],
        rows: [&[QuantBlock]; R],
        ahead: Ahead,
    ) -> Sums<S, R> {
        let mut sums = [[simd.splat(0.0); 2]; R];
        for (index, block) in panel.iter().enumerate() {
            ahead.ask(simd, block, panel.len());
            let mut products = [[simd.start(0); 2]; R];
            for r in 0..R {
                products[r] = [simd.start(rows[r][index].offset); 2];
            }
            for (step, weights) in block.weights.iter().enumerate() {
                let (low, high) = (simd.weights(&weights[0]), simd.weights(&weights[1]));
                for r in 0..R {
                    let quad = rows[r][index].quads[step];
                    products[r][0] = simd.dot4(products[r][0], low, quad);
                    products[r][1] = simd.dot4(products[r][1], high, quad);
                }
            }
            let (scales, _) = block.scales.as_chunks::<LANES>();
            let (low, high) = (simd.load_f16(&scales[0]), simd.load_f16(&scales[1]));
            for r in 0..R {
                let scale = simd.splat(rows[r][index].scale);
                sums[r][0] = simd.fma(simd.to_float(products[r][0]), simd.mul(low, scale), sums[r][0]);
                sums[r][1] = simd.fma(simd.to_float(products[r][1]), simd.mul(high, scale), sums[r][1]);
            }
        }
        sums
    }
}
