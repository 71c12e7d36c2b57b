//! One step of a model: the forward pass over a batch of rows, a row being one
//! position of one sequence.
//!
//! The batch mixes prompts that are being read and sequences that generate,
//! each with an adapter of its own or none. Matrix products are done over all
//! rows at once, everything else row by row. Which thread takes which rows has
//! no influence on any result.

use super::adapter::Adapter;
use super::cache::SequenceCache;
use super::files::LoraModule;
use super::kernels::{Activation, Attention, Isa, Matrix, Team};
use super::model::{Layer, Model};

/// The next positions of one sequence.
pub struct Slice<'a> {
    /// Holds the positions before these, and has room for these.
    pub cache: &'a mut SequenceCache,
    pub tokens: &'a [u32],
    pub adapter: Option<&'a Adapter>,
    pub wanted: Wanted,
}

/// Which of a slice's positions need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    Last,
    All,
}

/// The scratch space of a step; kept from step to step.
#[derive(Default)]
pub struct Forward {
    rows: Vec<Row>,
    logits: Vec<Vec<f32>>,
}

/// What is computed of one row.
struct Row {
    slice: usize,
    position: usize,
    wanted: bool,
    /// The residual stream.
    x: Vec<f32>,
    /// The normalised residual stream, as input of a product.
    input: Activation,
    qkv: Vec<f32>,
    attended: Activation,
    /// What a block adds to the residual stream.
    added: Vec<f32>,
    gate_up: Vec<f32>,
    mixed: Activation,
    /// Between the two halves of an adapter.
    low: Vec<f32>,
    scores: Vec<f32>,
    /// One head, while it is normalised.
    head: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// One slice and its rows.
struct Store<'a, 'b> {
    slice: &'a mut Slice<'b>,
    rows: &'a [Row],
}

// === impl Forward ===

impl Forward {
    /// Runs all slices through the model and advances their caches. Returns the logits of the wanted positions, in
    /// order; they may be changed in place. Between two layers `wanted` is asked whether anybody still waits for the
    /// result; where nobody does, the work ends with `None`, and the caches are as long as before.
    pub fn run(
        &mut self,
        model: &Model,
        team: &mut Team,
        batch: &mut [Slice<'_>],
        wanted: impl Fn() -> bool,
    ) -> Option<&mut [Vec<f32>]> {
        let isa = team.isa();
        let count = self.lay_out(model, batch);
        let rows = &mut self.rows[..count];
        team.each(rows, |_, row| {
            let slice = &batch[row.slice];
            row.embed(model, slice);
        });
        for (index, layer) in model.layers.iter().enumerate() {
            if !wanted() {
                return None;
            }
            team.each(rows, |_, row| row.normalise(isa, model, &layer.attn_norm));
            linear(team, &layer.qkv, rows, |row| (&row.input, &mut row.qkv));
            team.each(rows, |_, row| row.rotate(isa, model, layer, index, batch[row.slice].adapter));
            store(team, model, index, rows, batch);
            team.each(rows, |_, row| row.attend(isa, model, index, &batch[row.slice]));
            linear(team, &layer.o, rows, |row| (&row.attended, &mut row.added));
            team.each(rows, |_, row| {
                row.add(isa, index, LoraModule::O, batch[row.slice].adapter);
                row.normalise(isa, model, &layer.ffn_norm);
            });
            linear(team, &layer.gate_up, rows, |row| (&row.input, &mut row.gate_up));
            team.each(rows, |_, row| row.mix(isa, index, batch[row.slice].adapter));
            linear(team, &layer.down, rows, |row| (&row.mixed, &mut row.added));
            team.each(rows, |_, row| row.add(isa, index, LoraModule::Down, batch[row.slice].adapter));
        }
        for slice in batch.iter_mut() {
            slice.cache.advance(slice.tokens.len());
        }
        Some(self.logits(model, team, count))
    }

    /// Gives every position of the batch a row.
    fn lay_out(&mut self, model: &Model, batch: &[Slice<'_>]) -> usize {
        let mut count = 0;
        for (index, slice) in batch.iter().enumerate() {
            let (start, length) = (slice.cache.len(), slice.tokens.len());
            assert!(
                length > 0 && start + length <= slice.cache.room(),
                "a slice has tokens, and its cache room for them"
            );
            for offset in 0..length {
                if self.rows.len() == count {
                    self.rows.push(Row::new(model));
                }
                let row = &mut self.rows[count];
                row.slice = index;
                row.position = start + offset;
                row.wanted = match slice.wanted {
                    Wanted::Nothing => false,
                    Wanted::Last => offset + 1 == length,
                    Wanted::All => true,
                };
                count += 1;
            }
        }
        count
    }

    fn logits(&mut self, model: &Model, team: &mut Team, count: usize) -> &mut [Vec<f32>] {
        let isa = team.isa();
        let mut wanted: Vec<&mut Row> = self.rows[..count].iter_mut().filter(|row| row.wanted).collect();
        team.each(&mut wanted, |_, row| row.normalise(isa, model, &model.final_norm));
        while self.logits.len() < wanted.len() {
            self.logits.push(vec![0.0; model.config().vocab]);
        }
        let logits = &mut self.logits[..wanted.len()];
        let inputs: Vec<&Activation> = wanted.iter().map(|row| &row.input).collect();
        let mut outputs: Vec<&mut [f32]> = logits.iter_mut().map(Vec::as_mut_slice).collect();
        if !inputs.is_empty() {
            team.linear(model.output(), &inputs, &mut outputs);
        }
        logits
    }
}

/// One matrix product for all rows.
fn linear(
    team: &mut Team,
    matrix: &Matrix,
    rows: &mut [Row],
    parts: impl Fn(&mut Row) -> (&Activation, &mut Vec<f32>),
) {
    let (inputs, mut outputs): (Vec<_>, Vec<_>) = rows
        .iter_mut()
        .map(|row| {
            let (input, output) = parts(row);
            (input, output.as_mut_slice())
        })
        .unzip();
    team.linear(matrix, &inputs, &mut outputs);
}

/// Puts the rows' keys and values into their sequences' caches. A sequence is one thread's, since its rows share blocks.
fn store(team: &mut Team, model: &Model, layer: usize, rows: &[Row], batch: &mut [Slice<'_>]) {
    let isa = team.isa();
    let mut rest = rows;
    let mut stores: Vec<Store<'_, '_>> = batch
        .iter_mut()
        .map(|slice| {
            let (rows, after) = rest.split_at(slice.tokens.len());
            rest = after;
            Store { slice, rows }
        })
        .collect();
    team.each(&mut stores, |_, store| {
        for row in store.rows {
            let (_, keys, values) = row.qkv_parts(model);
            store.slice.cache.store(isa, model.kv_shape(), layer, row.position, keys, values);
        }
    });
}

// === impl Row ===

impl Row {
    fn new(model: &Model) -> Self {
        let config = model.config();
        let precision = model.precision();
        let attention = config.heads * config.head_dim;
        Self {
            slice: 0,
            position: 0,
            wanted: false,
            x: vec![0.0; config.hidden],
            input: Activation::new(config.hidden, precision),
            qkv: vec![0.0; attention + 2 * config.kv_heads * config.head_dim],
            attended: Activation::new(attention, precision),
            added: vec![0.0; config.hidden],
            gate_up: vec![0.0; 2 * config.intermediate],
            mixed: Activation::new(config.intermediate, precision),
            low: Vec::new(),
            scores: Vec::new(),
            head: vec![0.0; config.head_dim],
            cos: vec![0.0; config.head_dim / 2],
            sin: vec![0.0; config.head_dim / 2],
        }
    }

    /// Starts the row: the token's embedding, the position's rotation, room for the adapter.
    fn embed(&mut self, model: &Model, slice: &Slice<'_>) {
        let token = slice.tokens[self.position - slice.cache.len()];
        model.embedding.row(token as usize, &mut self.x);
        let angles = self.cos.iter_mut().zip(&mut self.sin).zip(&model.inverse_frequencies);
        for ((cos, sin), frequency) in angles {
            let angle = self.position as f32 * frequency;
            (*sin, *cos) = angle.sin_cos();
        }
        self.low.resize(slice.adapter.map_or(0, Adapter::max_rank), 0.0);
    }

    fn normalise(&mut self, isa: Isa, model: &Model, weight: &[f32]) {
        isa.rms_norm(&self.x, weight, model.config().rms_eps, self.input.values_mut());
        self.input.quantise(isa);
    }

    /// Queries, keys and values.
    fn qkv_parts(&self, model: &Model) -> (&[f32], &[f32], &[f32]) {
        let config = model.config();
        let (queries, rest) = self.qkv.split_at(config.heads * config.head_dim);
        let (keys, values) = rest.split_at(config.kv_heads * config.head_dim);
        (queries, keys, values)
    }

    /// Finishes queries, keys and values: bias, adapter, norms, rotation.
    fn rotate(&mut self, isa: Isa, model: &Model, layer: &Layer, index: usize, adapter: Option<&Adapter>) {
        let config = model.config();
        if let Some(bias) = &layer.qkv_bias {
            isa.add_assign(&mut self.qkv, bias);
        }
        let (queries, rest) = self.qkv.split_at_mut(config.heads * config.head_dim);
        let (keys, values) = rest.split_at_mut(config.kv_heads * config.head_dim);
        if let Some(adapter) = adapter {
            let x = self.input.values();
            adapter.apply(isa, index, LoraModule::Q, x, &mut self.low, queries);
            adapter.apply(isa, index, LoraModule::K, x, &mut self.low, keys);
            adapter.apply(isa, index, LoraModule::V, x, &mut self.low, values);
        }
        let norms = layer.qk_norm.as_ref().map(|(queries, keys)| (queries.as_slice(), keys.as_slice())).unzip();
        for (heads, norm) in [(queries, norms.0), (keys, norms.1)] {
            for head in heads.chunks_exact_mut(config.head_dim) {
                if let Some(weight) = norm {
                    isa.rms_norm(head, weight, config.rms_eps, &mut self.head);
                    head.copy_from_slice(&self.head);
                }
                isa.rope(head, &self.cos, &self.sin);
            }
        }
    }

    fn attend(&mut self, isa: Isa, model: &Model, layer: usize, slice: &Slice<'_>) {
        let config = model.config();
        let attention = Attention {
            shape: model.kv_shape(),
            layer,
            blocks: slice.cache.blocks(),
            positions: self.position + 1,
            heads: config.heads,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
        };
        let queries = &self.qkv[..config.heads * config.head_dim];
        attention.attend(isa, queries, &mut self.scores, self.attended.values_mut());
        self.attended.quantise(isa);
    }

    /// Gate, up and their adapters, then SiLU(gate) · up.
    fn mix(&mut self, isa: Isa, layer: usize, adapter: Option<&Adapter>) {
        let half = self.gate_up.len() / 2;
        let (gate, up) = self.gate_up.split_at_mut(half);
        if let Some(adapter) = adapter {
            adapter.apply(isa, layer, LoraModule::Gate, self.input.values(), &mut self.low, gate);
            adapter.apply(isa, layer, LoraModule::Up, self.input.values(), &mut self.low, up);
        }
        isa.swiglu(gate, up, self.mixed.values_mut());
        self.mixed.quantise(isa);
    }

    /// Adds a block's output, with its adapter, to the residual stream.
    fn add(&mut self, isa: Isa, layer: usize, module: LoraModule, adapter: Option<&Adapter>) {
        if let Some(adapter) = adapter {
            let input = if module == LoraModule::O { &self.attended } else { &self.mixed };
            adapter.apply(isa, layer, module, input.values(), &mut self.low, &mut self.added);
        }
        isa.add_assign(&mut self.x, &self.added);
    }
}
