//! Weights, packed in the order in which a product reads them.
//!
//! A *panel* is [`PANEL`] outputs with all their inputs, one after the other in memory, so that a thread reads one
//! sequential stream. Within a panel the inputs are the outer dimension: a vector holds the same input (the same
//! four, on the fast path) of sixteen outputs, and what is broadcast is the activation.

use std::fmt;

use half::f16;

use super::{
    BLOCK, Isa, Precision,
    activation::{LARGEST, SCALE_BIAS, largest_magnitude, to_bytes},
    simd::{Kernel, Simd},
};

/// Outputs per panel.
pub(super) const PANEL: usize = 32;

/// A matrix of weights, `outputs x inputs`.
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

/// Panels in sequence. Outputs beyond the last are zero and never written out.
pub(super) enum Panels {
    /// `inputs` steps per panel.
    Exact(Vec<FloatStep>),
    /// `inputs / BLOCK` blocks per panel.
    Fast(Vec<PanelBlock>),
}

/// One input of all outputs of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct FloatStep(pub(super) [f32; PANEL]);

/// [`BLOCK`] inputs of all outputs of a panel: 17 cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct PanelBlock {
    /// Per step of four inputs, two vectors of 16 outputs x 4 inputs, each weight as `w + 128`.
    pub(super) weights: [[[u8; 64]; 2]; BLOCK / 4],
    /// Per output what a step of one is worth, times [`SCALE_BIAS`], as f16.
    pub(super) scales: [u16; PANEL],
}

/// Why weights cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The number of values is not the product of the dimensions.
    Length {
        /// What the dimensions ask for.
        expected: usize,
        /// What there was.
        found: usize,
    },
    /// A dimension is zero, or not a multiple of what the layout needs.
    Dimension {
        /// Which dimension.
        name: &'static str,
        /// What it must be a multiple of.
        multiple: usize,
        /// What it was.
        found: usize,
    },
    /// A weight is NaN or infinite, or too large for its format.
    Range {
        /// The row of the first such weight.
        row: usize,
    },
}

impl Matrix {
    /// Packs row-major weights. On the fast path `inputs` must be a multiple of [`BLOCK`].
    pub fn pack(weights: &[f32], outputs: usize, inputs: usize, precision: Precision) -> Result<Self, LayoutError> {
        let multiple = match precision {
            Precision::Exact => 1,
            Precision::Fast => BLOCK,
        };
        check_dimension("inputs", inputs, multiple)?;
        check_dimension("outputs", outputs, 1)?;
        check_length(weights, outputs, inputs)?;
        let panel_count = outputs.div_ceil(PANEL);
        let panels = match precision {
            Precision::Exact => {
                check_finite(weights, inputs)?;
                let mut steps = vec![FloatStep([0.0; PANEL]); panel_count * inputs];
                let panels = steps.chunks_exact_mut(inputs).zip(weights.chunks(PANEL * inputs));
                for (panel, rows) in panels {
                    // Step by step: what is written is then written in sequence.
                    for (input, step) in panel.iter_mut().enumerate() {
                        for (weight, row) in step.0.iter_mut().zip(rows.chunks_exact(inputs)) {
                            *weight = row[input];
                        }
                    }
                }
                Panels::Exact(steps)
            }
            Precision::Fast => {
                let per_panel = inputs / BLOCK;
                let mut blocks = vec![PanelBlock::ZERO; panel_count * per_panel];
                let isa = Isa::detect();
                for (output, row) in weights.chunks_exact(inputs).enumerate() {
                    let packed = isa.run(PackRow {
                        row,
                        panel: &mut blocks[output / PANEL * per_panel..][..per_panel],
                        output: output % PANEL,
                    });
                    packed.ok_or(LayoutError::Range { row: output })?;
                }
                Panels::Fast(blocks)
            }
        };
        Ok(Self { outputs, inputs, panels })
    }

    /// Rows of the matrix: the length of a result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix: the length of an input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Memory that weights of these dimensions take once they are packed.
    pub fn packed_bytes(outputs: usize, inputs: usize, precision: Precision) -> usize {
        let step = match precision {
            Precision::Exact => inputs * size_of::<FloatStep>(),
            Precision::Fast => inputs / BLOCK * size_of::<PanelBlock>(),
        };
        outputs.div_ceil(PANEL) * step
    }

    /// Memory the packed weights take.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::Exact(steps) => size_of_val(&steps[..]),
            Panels::Fast(blocks) => size_of_val(&blocks[..]),
        }
    }

    /// Which path the weights are packed for.
    pub fn precision(&self) -> Precision {
        match &self.panels {
            Panels::Exact(_) => Precision::Exact,
            Panels::Fast(_) => Precision::Fast,
        }
    }

    /// Writes the weights of one output to `row`, as a product sees them: what an embedding looks up when it shares
    /// its weights with the last layer.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs, "output {output} of {}", self.outputs);
        assert_eq!(row.len(), self.inputs, "a row has as many values as the matrix inputs");
        let (panel, lane) = (output / PANEL, output % PANEL);
        match &self.panels {
            Panels::Exact(steps) => {
                let panel = &steps[panel * self.inputs..][..self.inputs];
                for (value, step) in row.iter_mut().zip(panel) {
                    *value = step.0[lane];
                }
            }
            Panels::Fast(blocks) => {
                let per_panel = self.inputs / BLOCK;
                let panel = &blocks[panel * per_panel..][..per_panel];
                for (values, block) in row.chunks_exact_mut(BLOCK).zip(panel) {
                    let scale = f16::from_bits(block.scales[lane]).to_f32() / SCALE_BIAS;
                    for (input, value) in values.iter_mut().enumerate() {
                        let stored = block.weights[input / 4][lane / 16][lane % 16 * 4 + input % 4];
                        *value = (f32::from(stored) - 128.0) * scale;
                    }
                }
            }
        }
    }

    pub(super) fn panels(&self) -> &Panels {
        &self.panels
    }
}

impl PanelBlock {
    const ZERO: Self = Self { weights: [[[128; 64]; 2]; BLOCK / 4], scales: [0; PANEL] };
}

/// Puts one row into its lane of a panel. `None` if a weight is not finite or its scale too large for f16.
struct PackRow<'a> {
    row: &'a [f32],
    panel: &'a mut [PanelBlock],
    output: usize,
}

impl Kernel for PackRow<'_> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<()> {
        let (half, lane) = (self.output / 16, self.output % 16);
        let (blocks, _) = self.row.as_chunks::<BLOCK>();
        for (values, block) in blocks.iter().zip(self.panel) {
            let largest = largest_magnitude(simd, values);
            let stored = f16::from_f32(largest / LARGEST * SCALE_BIAS);
            if !stored.is_finite() {
                return None;
            }
            // The weights are rounded in units of the scale as it is stored, not as it was computed.
            let scale = stored.to_f32() / SCALE_BIAS;
            if scale == 0.0 {
                continue;
            }
            let (bytes, _) = to_bytes(simd, values, 1.0 / scale);
            block.scales[self.output] = stored.to_bits();
            let (fours, _) = bytes.as_chunks::<4>();
            for (step, four) in block.weights.iter_mut().zip(fours) {
                let to = &mut step[half][lane * 4..][..4];
                to.copy_from_slice(&four.map(|byte| byte as u8 ^ 0x80));
            }
        }
        Some(())
    }
}

pub(super) fn check_dimension(name: &'static str, found: usize, multiple: usize) -> Result<(), LayoutError> {
    if found == 0 || !found.is_multiple_of(multiple) {
        return Err(LayoutError::Dimension { name, multiple, found });
    }
    Ok(())
}

pub(super) fn check_length(values: &[f32], rows: usize, columns: usize) -> Result<(), LayoutError> {
    let expected = rows.saturating_mul(columns);
    if values.len() != expected {
        return Err(LayoutError::Length { expected, found: values.len() });
    }
    Ok(())
}

pub(super) fn check_finite(values: &[f32], columns: usize) -> Result<(), LayoutError> {
    for (row, values) in values.chunks_exact(columns).enumerate() {
        if !values.iter().all(|value| value.is_finite()) {
            return Err(LayoutError::Range { row });
        }
    }
    Ok(())
}

impl fmt::Display for LayoutError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => write!(formatter, "{expected} values expected, {found} found"),
            Self::Dimension { name, multiple, found } => {
                write!(formatter, "{name} must be a positive multiple of {multiple}, not {found}")
            }
            Self::Range { row } => write!(formatter, "row {row} has a value that is not finite or too large"),
        }
    }
}

impl std::error::Error for LayoutError {}
