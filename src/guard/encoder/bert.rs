//! The network: BERT's encoder (Devlin et al. 2019), after Vaswani et al. 2017, and the
//! classifier on the first token.
//!
//! Texts of a batch lie one after the other, without padding: what is done to single
//! tokens is done to all at once, and attention to each text by itself. So a text
//! costs what it is long, and nothing of another can leak into it.

use std::ops::Range;

use candle_core::quantized::QMatMul;
use candle_core::{Device, Tensor};
use tenantry_kernels::{Curve, Isa, Precision, Team};

use super::attention::{Heads, Scratch};
use super::config::{Config, Family};
use super::error::{EncoderError, Result};
use super::linear::{Linear, Normed, Rows};
use super::weights::{FILE, Weights};

#[derive(Debug)]
pub(super) struct Bert {
    words: QMatMul,
    /// [positions, hidden]: the position's row, with the token type's added.
    positions: Vec<f32>,
    first_position: usize,
    embedded: Normed,
    layers: Vec<Layer>,
    /// What is done to the first token before `classifier`.
    pooler: Linear,
    pooled: Curve,
    classifier: Linear,
    outputs: usize,
    heads: Heads,
    hidden: usize,
}

#[derive(Debug)]
struct Layer {
    /// Query, key and value side by side.
    attention: Linear,
    attended: Linear,
    attended_norm: Normed,
    inner: Linear,
    curve: Curve,
    outer: Linear,
    outer_norm: Normed,
}

/// What the layers write to, each over what the one before wrote.
struct Pass {
    team: Team,
    isa: Isa,
    /// Of all texts, one text behind the other.
    tokens: Rows,
    /// Query, key and value of each token.
    projected: Vec<f32>,
    attended: Rows,
    between: Rows,
    inner: Rows,
    scratch: Scratch,
}

/// The names of one family's tensors.
struct Names {
    embeddings: String,
    token_types: bool,
    layer: fn(usize) -> String,
    query: [&'static str; 3],
    attended: [&'static str; 2],
    inner: &'static str,
    outer: [&'static str; 2],
    pooler: &'static str,
    classifier: &'static str,
    pooled: Curve,
}

// === impl Names ===

impl Names {
    fn of(family: Family) -> Self {
        let bert = Self {
            embeddings: "bert.embeddings".to_owned(),
            token_types: true,
            layer: |layer| format!("bert.encoder.layer.{layer}"),
            query: ["attention.self.query", "attention.self.key", "attention.self.value"],
            attended: ["attention.output.dense", "attention.output.LayerNorm"],
            inner: "intermediate.dense",
            outer: ["output.dense", "output.LayerNorm"],
            pooler: "bert.pooler.dense",
            classifier: "classifier",
            pooled: Curve::Tanh,
        };
        match family {
            Family::Bert => bert,
            Family::Roberta => Self {
                embeddings: "roberta.embeddings".to_owned(),
                layer: |layer| format!("roberta.encoder.layer.{layer}"),
                pooler: "classifier.dense",
                classifier: "classifier.out_proj",
                ..bert
            },
            Family::DistilBert => Self {
                embeddings: "distilbert.embeddings".to_owned(),
                token_types: false,
                layer: |layer| format!("distilbert.transformer.layer.{layer}"),
                query: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                attended: ["attention.out_lin", "sa_layer_norm"],
                inner: "ffn.lin1",
                outer: ["ffn.lin2", "output_layer_norm"],
                pooler: "pre_classifier",
                classifier: "classifier",
                pooled: Curve::Relu,
            },
        }
    }
}

// === impl Bert ===

impl Bert {
    /// The layers compute with `precision`. What is done to the first token alone costs
    /// little, and is always exact.
    pub(super) fn load(config: &Config, weights: &Weights<'_>, precision: Precision) -> Result<Self> {
        let names = Names::of(config.family);
        let (hidden, within) = (config.hidden, |name: &str| format!("{}.{name}", names.embeddings));
        let rows = config.first_position + config.positions;
        let mut positions = weights.numbers(&within("position_embeddings.weight"), &[rows, hidden])?;
        if names.token_types {
            // Of one or two types, all tokens have the first.
            let name = within("token_type_embeddings.weight");
            let two = weights.numbers(&name, &[2, hidden]);
            let types = if two.is_ok() { two? } else { weights.numbers(&name, &[1, hidden])? };
            for (at, number) in positions.iter_mut().enumerate() {
                *number += types[at % hidden];
            }
        }
        let heads = Heads::new(config.heads, hidden / config.heads);
        let layer = |layer| Layer::load(config, weights, &names, &(names.layer)(layer), precision);
        let exact = |name, outputs| Linear::load(weights, &[name], hidden, outputs, Precision::Exact);
        Ok(Self {
            words: weights.table(&within("word_embeddings.weight"), &[config.vocabulary, hidden])?,
            positions,
            first_position: config.first_position,
            embedded: Normed::load(config, weights, &within("LayerNorm"))?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            pooler: exact(names.pooler, hidden)?,
            pooled: names.pooled,
            classifier: exact(names.classifier, config.labels.len())?,
            outputs: config.labels.len(),
            heads: heads.map_err(|error| EncoderError::unfit(FILE, "heads", error.to_string()))?,
            hidden,
        })
    }

    /// `texts`: tokens of each, special ones included, at least one and at most as many as
    /// there are positions. Gives `[texts][outputs]`.
    pub(super) fn logits(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut pass = self.embed(texts)?;
        let mut end = 0;
        let ranges = texts.iter().map(|text| {
            end += text.len();
            end - text.len()..end
        });
        let ranges: Vec<Range<usize>> = ranges.collect();
        let (last, others) = self.layers.split_last().expect("a configuration has one layer at least");
        for layer in others {
            layer.forward(&mut pass, &ranges, &self.heads, Wanted::All);
        }
        last.forward(&mut pass, &ranges, &self.heads, Wanted::First);
        let Pass { mut team, isa, tokens, .. } = pass;
        let mut first = Rows::new(texts.len(), self.hidden, Precision::Exact);
        for (row, token) in first.iter_mut().zip(tokens.iter()) {
            row.copy_from_slice(token);
        }
        let mut pooled = Rows::new(texts.len(), self.hidden, Precision::Exact);
        self.pooler.multiply(&mut team, &mut first, pooled.iter_mut());
        pooled.bend(isa, &self.pooler.bias, self.pooled);
        let mut logits = vec![vec![0.0; self.outputs]; texts.len()];
        self.classifier.multiply(&mut team, &mut pooled, logits.iter_mut().map(Vec::as_mut_slice));
        logits.iter_mut().for_each(|row| isa.bend(row, &self.classifier.bias, Curve::Straight));
        Ok(logits)
    }

    /// What the first layer begins with.
    fn embed(&self, texts: &[&[u32]]) -> Result<Pass> {
        let (hidden, precision) = (self.hidden, self.layers[0].attention.precision());
        let ids: Vec<u32> = texts.concat();
        let count = ids.len();
        let words = self.words.embedding(&Tensor::new(ids, &Device::Cpu)?)?.flatten_all()?.to_vec1::<f32>()?;
        let places = texts.iter().flat_map(|text| self.first_position..self.first_position + text.len());
        // One member, who calls: as many cores are busy as there are callers.
        let team = Team::new(1).map_err(|error| EncoderError::Thread(error.to_string()))?;
        let isa = team.isa();
        let mut tokens = Rows::new(count, hidden, precision);
        let no_bias = vec![0.0; hidden];
        for ((row, word), place) in tokens.iter_mut().zip(words.chunks_exact(hidden)).zip(places) {
            row.copy_from_slice(word);
            let place = &self.positions[place * hidden..][..hidden];
            isa.layer_norm(row, place, &no_bias, self.embedded.norm());
        }
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let inner = self.layers[0].inner.bias.len();
        Ok(Pass {
            team,
            isa,
            tokens,
            projected: vec![0.0; count * 3 * hidden],
            attended: Rows::new(count, hidden, precision),
            between: Rows::new(count, hidden, precision),
            inner: Rows::new(count, inner, precision),
            scratch: Scratch::new(&self.heads, longest),
        })
    }
}

/// The tokens of each text that a layer has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// The classifier reads nothing else of the last layer.
    First,
}

// === impl Layer ===

impl Layer {
    fn load(config: &Config, weights: &Weights<'_>, names: &Names, prefix: &str, precision: Precision) -> Result<Self> {
        let full = |name: &str| format!("{prefix}.{name}");
        let (hidden, inner) = (config.hidden, config.inner);
        let query = names.query.map(full);
        let linear = |names: &[&str], inputs, outputs| Linear::load(weights, names, inputs, outputs, precision);
        Ok(Self {
            attention: linear(&query.each_ref().map(String::as_str), hidden, hidden)?,
            attended: linear(&[&full(names.attended[0])], hidden, hidden)?,
            attended_norm: Normed::load(config, weights, &full(names.attended[1]))?,
            inner: linear(&[&full(names.inner)], hidden, inner)?,
            curve: config.curve,
            outer: linear(&[&full(names.outer[0])], inner, hidden)?,
            outer_norm: Normed::load(config, weights, &full(names.outer[1]))?,
        })
    }

    /// Changes the tokens, in which each text has a range; where only the first are
    /// wanted, nothing else is left of them.
    fn forward(&self, pass: &mut Pass, texts: &[Range<usize>], heads: &Heads, wanted: Wanted) {
        let Pass { team, isa, tokens, projected, attended, between, inner, scratch } = pass;
        let (isa, width) = (*isa, self.attention.bias.len());
        self.attention.multiply(team, tokens, projected.chunks_exact_mut(width));
        projected.chunks_exact_mut(width).for_each(|row| isa.bend(row, &self.attention.bias, Curve::Straight));
        if wanted == Wanted::First {
            tokens.keep(texts.iter().map(|text| text.start));
            attended.truncate(texts.len());
            between.truncate(texts.len());
            inner.truncate(texts.len());
        }
        let mut gathering = attended.iter_mut();
        for text in texts {
            let asking = if wanted == Wanted::All { 0..text.len() } else { 0..1 };
            let projected = &projected[text.start * width..text.end * width];
            let out = gathering.by_ref().take(asking.len());
            heads.attend(isa, projected, asking, scratch, out);
        }
        drop(gathering);
        self.attended.multiply(team, attended, between.iter_mut());
        for (row, before) in between.iter_mut().zip(tokens.iter()) {
            isa.layer_norm(row, before, &self.attended.bias, self.attended_norm.norm());
        }
        self.inner.multiply(team, between, inner.iter_mut());
        inner.bend(isa, &self.inner.bias, self.curve);
        self.outer.multiply(team, inner, tokens.iter_mut());
        for (row, before) in tokens.iter_mut().zip(between.iter()) {
            isa.layer_norm(row, before, &self.outer.bias, self.outer_norm.norm());
        }
    }
}
