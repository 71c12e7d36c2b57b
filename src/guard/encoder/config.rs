//! `config.json` of a Hugging Face folder: which architecture, how large, and what
//! its outputs mean.

use std::collections::BTreeMap;

use serde::Deserialize;
use tenantry_kernels::Curve;

use super::error::{EncoderError, Result};
use super::labels::Labels;

pub(super) const FILE: &str = "config.json";

/// The families that are alike enough to be one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Devlin et al. 2019.
    Bert,
    /// Sanh et al. 2019: BERT without token types, half as deep.
    DistilBert,
    /// Liu et al. 2019, and XLM-RoBERTa (Conneau et al. 2020), which is the same with
    /// another vocabulary.
    Roberta,
}

/// Checked: whole heads, and sizes that can be held.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) family: Family,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    pub(super) vocabulary: usize,
    /// Positions that a window may have, the special tokens counted.
    pub(super) positions: usize,
    /// The row of the table of positions that the first token has.
    pub(super) first_position: usize,
    pub(super) curve: Curve,
    pub(super) epsilon: f32,
    pub(super) labels: Labels,
    /// The model was trained on texts in their normal form.
    pub(super) normal_form: bool,
}

/// The fields that matter, under the names that any of the families gives them.
#[derive(Debug, Deserialize)]
struct File {
    model_type: String,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "activation", default = "gelu")]
    hidden_act: String,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    vocab_size: usize,
    pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
    problem_type: Option<String>,
    id2label: Option<BTreeMap<String, String>>,
    num_labels: Option<usize>,
    #[serde(default)]
    tenantry_normal_form: bool,
    #[serde(default)]
    tenantry_kinds_given_toxic: bool,
}

fn gelu() -> String {
    "gelu".to_owned()
}

/// DistilBERT's, whose configuration does not name it.
fn epsilon() -> f64 {
    1e-12
}

/// More than any model of these families has, and little enough to multiply.
const LARGEST: usize = 1 << 20;

impl Config {
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let unfit = |field: &str, reason: String| EncoderError::unfit(FILE, field, reason);
        let file: File = serde_json::from_slice(json).map_err(|error| unfit("JSON", error.to_string()))?;
        let family = match file.model_type.as_str() {
            "bert" => Family::Bert,
            "distilbert" => Family::DistilBert,
            "roberta" | "xlm-roberta" => Family::Roberta,
            other => {
                let known = "bert, distilbert, roberta and xlm-roberta";
                return Err(unfit("model_type", format!("{other:?} is not supported; {known} are")));
            }
        };
        let curve = match file.hidden_act.as_str() {
            "gelu" => Curve::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Curve::GeluTanh,
            "relu" => Curve::Relu,
            other => return Err(unfit("hidden_act", format!("{other:?} is not supported; gelu, gelu_new, relu are"))),
        };
        if let Some(kind) = file.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(unfit("position_embedding_type", format!("{kind:?} is not supported; absolute is")));
        }
        for (field, size) in [
            ("hidden_size", file.hidden_size),
            ("num_hidden_layers", file.num_hidden_layers),
            ("num_attention_heads", file.num_attention_heads),
            ("intermediate_size", file.intermediate_size),
            ("vocab_size", file.vocab_size),
            ("max_position_embeddings", file.max_position_embeddings),
        ] {
            if !(1..=LARGEST).contains(&size) {
                return Err(unfit(field, format!("{size} is not from 1 to {LARGEST}")));
            }
        }
        if !file.hidden_size.is_multiple_of(file.num_attention_heads) {
            let heads = file.num_attention_heads;
            return Err(unfit("num_attention_heads", format!("{} is not a multiple of {heads}", file.hidden_size)));
        }
        // RoBERTa counts positions from behind the padding's.
        let first_position =
            if family == Family::Roberta { file.pad_token_id.unwrap_or(1).min(LARGEST) + 1 } else { 0 };
        let positions = file.max_position_embeddings.saturating_sub(first_position);
        if positions < 8 {
            return Err(unfit("max_position_embeddings", format!("{positions} places for tokens are too few")));
        }
        let names = named(file.id2label, file.num_labels.unwrap_or(2))?;
        let multi = file.problem_type.as_deref() == Some("multi_label_classification");
        Ok(Self {
            family,
            hidden: file.hidden_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            inner: file.intermediate_size,
            vocabulary: file.vocab_size,
            positions,
            first_position,
            curve,
            epsilon: file.layer_norm_eps as f32,
            labels: Labels::of(&names, multi, file.tenantry_kinds_given_toxic)?,
            normal_form: file.tenantry_normal_form,
        })
    }
}

/// Labels in the order of the outputs; `LABEL_0` and so on where none are named.
fn named(id2label: Option<BTreeMap<String, String>>, count: usize) -> Result<Vec<String>> {
    let unfit = |reason: String| EncoderError::unfit(FILE, "id2label", reason);
    let Some(id2label) = id2label else {
        return Ok((0..count.min(64)).map(|at| format!("LABEL_{at}")).collect());
    };
    let mut names = vec![None; id2label.len()];
    for (id, name) in id2label {
        let at: usize = id.parse().map_err(|_| unfit(format!("{id:?} is no number")))?;
        let place = names.get_mut(at).ok_or_else(|| unfit(format!("{at} is there, and not all before it")))?;
        *place = Some(name);
    }
    let whole: Option<Vec<String>> = names.into_iter().collect();
    whole.filter(|names| !names.is_empty()).ok_or_else(|| unfit("some outputs have no name".to_owned()))
}
