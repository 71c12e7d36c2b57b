//! The network: BERT's encoder (Devlin et al. 2019), after Vaswani et al. 2017, and the
//! classifier on the first token.
//!
//! Texts of a batch lie one after the other, without padding: what is done to single
//! tokens is done to all at once, and attention to each text by itself. So a text
//! costs what it is long, and nothing of another can leak into it.

use std::ops::Range;

use candle_core::quantized::QMatMul;
use candle_core::{Device, Tensor};

use super::config::{Config, Family};
use super::error::Result;
use super::ops::{Activation, Bias, Norm, Softmax};
use super::weights::Weights;

#[derive(Debug)]
pub(super) struct Bert {
    words: QMatMul,
    /// [positions, hidden]: the position's row, with the token type's added.
    positions: Tensor,
    first_position: usize,
    embedded: Normed,
    layers: Vec<Layer>,
    /// What is done to the first token before `classifier`.
    pooler: Linear,
    classifier: Linear,
    heads: usize,
}

#[derive(Debug)]
struct Layer {
    /// Query, key and value side by side: [hidden, 3 · hidden].
    attention: Linear,
    attended: Tensor,
    attended_norm: Normed,
    inner: Linear,
    outer: Tensor,
    outer_norm: Normed,
}

/// `activation(x · weight + bias)`; weight: [inputs, outputs].
#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

/// The bias before, and the scale and shift of a layer normalisation: [3, hidden].
#[derive(Debug)]
struct Normed {
    weights: Tensor,
    epsilon: f32,
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
    pooled: Activation,
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
            pooled: Activation::Tanh,
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
                pooled: Activation::Relu,
            },
        }
    }
}

// === impl Bert ===

impl Bert {
    pub(super) fn load(config: &Config, weights: &Weights<'_>) -> Result<Self> {
        let names = Names::of(config.family);
        let (hidden, within) = (config.hidden, |name: &str| format!("{}.{name}", names.embeddings));
        let rows = config.first_position + config.positions;
        let mut positions = weights.tensor(&within("position_embeddings.weight"), &[rows, hidden])?;
        if names.token_types {
            // Of one or two types, all tokens have the first.
            let name = within("token_type_embeddings.weight");
            let two = weights.tensor(&name, &[2, hidden]);
            let types = if two.is_ok() { two? } else { weights.tensor(&name, &[1, hidden])? };
            positions = positions.broadcast_add(&types.narrow(0, 0, 1)?)?;
        }
        let no_bias = Tensor::zeros(hidden, candle_core::DType::F32, &Device::Cpu)?;
        let layer = |layer| Layer::load(config, weights, &names, &(names.layer)(layer));
        Ok(Self {
            words: weights.table(&within("word_embeddings.weight"), &[config.vocabulary, hidden])?,
            positions,
            first_position: config.first_position,
            embedded: Normed::load(config, weights, no_bias, &within("LayerNorm"))?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            pooler: Linear::load(weights, &[names.pooler], hidden, hidden, names.pooled)?,
            classifier: Linear::load(weights, &[names.classifier], hidden, config.labels.len(), Activation::None)?,
            heads: config.heads,
        })
    }

    /// `texts`: tokens of each, special ones included, at least one and at most as many as
    /// there are positions. Gives `[texts][outputs]`.
    pub(super) fn logits(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(texts.len());
        let mut ids = Vec::new();
        let mut places = Vec::new();
        for text in texts {
            ranges.push(ids.len()..ids.len() + text.len());
            ids.extend_from_slice(text);
            places.extend((self.first_position..).take(text.len()).map(|place| place as u32));
        }
        let tensor = |numbers: Vec<u32>| Tensor::new(numbers, &Device::Cpu);
        let places = self.positions.index_select(&tensor(places)?, 0)?;
        let mut tokens = self.embedded.forward(&self.words.embedding(&tensor(ids)?)?, &places)?;
        let (last, others) = self.layers.split_last().expect("a configuration has one layer at least");
        for layer in others {
            tokens = layer.forward(&tokens, &ranges, self.heads, Wanted::All)?;
        }
        let first = last.forward(&tokens, &ranges, self.heads, Wanted::First)?;
        Ok(self.classifier.forward(&self.pooler.forward(&first)?)?.to_vec2()?)
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
    fn load(config: &Config, weights: &Weights<'_>, names: &Names, prefix: &str) -> Result<Self> {
        let full = |name: &str| format!("{prefix}.{name}");
        let (hidden, inner) = (config.hidden, config.inner);
        let query = names.query.map(full);
        let attended = Linear::load(weights, &[&full(names.attended[0])], hidden, hidden, Activation::None)?;
        let outer = Linear::load(weights, &[&full(names.outer[0])], inner, hidden, Activation::None)?;
        Ok(Self {
            attention: Linear::load(weights, &query.each_ref().map(String::as_str), hidden, hidden, Activation::None)?,
            attended: attended.weight,
            attended_norm: Normed::load(config, weights, attended.bias, &full(names.attended[1]))?,
            inner: Linear::load(weights, &[&full(names.inner)], hidden, inner, config.activation)?,
            outer: outer.weight,
            outer_norm: Normed::load(config, weights, outer.bias, &full(names.outer[1]))?,
        })
    }

    /// `tokens`: [all tokens, hidden], in which each text has a range.
    fn forward(&self, tokens: &Tensor, texts: &[Range<usize>], heads: usize, wanted: Wanted) -> Result<Tensor> {
        let hidden = tokens.dim(1)?;
        let width = hidden / heads;
        let softmax = Softmax { scale: 1.0 / (width as f32).sqrt() };
        let together = self.attention.forward(tokens)?.reshape((tokens.dim(0)?, 3, heads, width))?;
        let mut attended = Vec::with_capacity(texts.len());
        for text in texts {
            let (start, length) = (text.start, text.len());
            let asking = if wanted == Wanted::All { length } else { 1 };
            // [heads, tokens, width], a view.
            let part = |nth: usize, rows: usize| {
                together.narrow(0, start, rows)?.narrow(1, nth, 1)?.squeeze(1)?.transpose(0, 1)
            };
            let weights = part(0, asking)?.matmul(&part(1, length)?.t()?)?.apply_op1_no_bwd(&softmax)?;
            attended.push(weights.matmul(&part(2, length)?)?.transpose(0, 1)?.flatten_from(1)?);
        }
        let attended = Tensor::cat(&attended, 0)?.matmul(&self.attended)?;
        let before = match wanted {
            Wanted::All => tokens.clone(),
            Wanted::First => {
                let first: Vec<u32> = texts.iter().map(|text| text.start as u32).collect();
                tokens.index_select(&Tensor::new(first, &Device::Cpu)?, 0)?
            }
        };
        let between = self.attended_norm.forward(&attended, &before)?;
        self.outer_norm.forward(&self.inner.forward(&between)?.matmul(&self.outer)?, &between)
    }
}

// === impl Linear ===

impl Linear {
    /// Of one or several weights, each [outputs, inputs] in the file, side by side.
    fn load(
        weights: &Weights<'_>,
        names: &[&str],
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Result<Self> {
        let of = |kind: &str, shape: &[usize]| {
            let parts = names.iter().map(|name| weights.tensor(&format!("{name}.{kind}"), shape));
            Ok::<_, super::EncoderError>(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
        };
        let weight = of("weight", &[outputs, inputs])?.t()?.contiguous()?;
        Ok(Self { weight, bias: of("bias", &[outputs])?, activation })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight)?.apply_op2_no_bwd(&self.bias, &Bias(self.activation))?)
    }
}

// === impl Normed ===

impl Normed {
    fn load(config: &Config, weights: &Weights<'_>, bias: Tensor, name: &str) -> Result<Self> {
        // Older files call them gamma and beta.
        let named = |new: &str, old: &str| {
            let new = format!("{name}.{new}");
            let old = format!("{name}.{old}");
            weights.tensor(if weights.has(&old) { &old } else { &new }, &[config.hidden])
        };
        let weights = Tensor::stack(&[bias, named("weight", "gamma")?, named("bias", "beta")?], 0)?;
        Ok(Self { weights, epsilon: config.epsilon })
    }

    fn forward(&self, x: &Tensor, before: &Tensor) -> Result<Tensor> {
        Ok(x.apply_op3_no_bwd(before, &self.weights, &Norm { epsilon: self.epsilon })?)
    }
}
