//! Writes the tokenizer.json that a GGUF file's metadata amounts to, so that both formats take the same path after it.
//!
//! GGUF names the way text is cut before merging (`tokenizer.ggml.pre`) instead of giving it; an unknown name is
//! refused, because a guess would give other tokens than the model was trained on.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::config_gguf::Metadata;
use super::error::{ModelFileError, quoted};
use super::gguf::GgufValue;

/// No real token comes near; a longer one would make the search for its merges quadratic.
const MAX_PIECE_BYTES: usize = 1024;

const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Ends of turn that instruct models emit, though GGUF names only one id. llama.cpp stops at these by name too.
const END_OF_TURN: [&str; 4] = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>"];

pub(crate) struct GgufTokenizer {
    pub(crate) json: Vec<u8>,
    pub(crate) eos_ids: Vec<u32>,
    pub(crate) bos_token: Option<String>,
    pub(crate) eos_token: Option<String>,
}

pub(crate) fn read(meta: &Metadata<'_>) -> Result<GgufTokenizer, ModelFileError> {
    let tokens = meta.texts("tokenizer.ggml.tokens")?;
    let types = token_types(meta, tokens.len())?;
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if token.len() > MAX_PIECE_BYTES {
            let reason = format!("token {id} has {} bytes", token.len());
            return Err(meta.key("tokenizer.ggml.tokens", reason));
        }
        if ids.insert(token.as_str(), id).is_some() {
            return Err(meta.key("tokenizer.ggml.tokens", format!("token `{}` occurs twice", quoted(token))));
        }
    }
    let bos = special_id(meta, "tokenizer.ggml.bos_token_id", tokens)?;
    let eos = special_id(meta, "tokenizer.ggml.eos_token_id", tokens)?;
    let mut eos_ids: Vec<u32> = eos.into_iter().collect();
    eos_ids.extend(special_id(meta, "tokenizer.ggml.eot_token_id", tokens)?);
    eos_ids.extend(
        END_OF_TURN.iter().filter_map(|name| ids.get(name)).filter(|id| types[**id] == CONTROL).map(|id| *id as u32),
    );

    let model = meta.text("tokenizer.ggml.model")?.ok_or_else(|| meta.missing("tokenizer.ggml.model"))?;
    let mut document = match model {
        "gpt2" => byte_level(meta, &ids)?,
        "llama" => sentence_piece(meta, tokens, &ids)?,
        other => return Err(meta.unsupported(format!("tokenizer model `{}`", quoted(other)))),
    };
    document["version"] = json!("1.0");
    document["truncation"] = Value::Null;
    document["padding"] = Value::Null;
    document["added_tokens"] = added_tokens(tokens, &types);
    // SentencePiece vocabularies and Llama 3's start every text with BOS unless they say otherwise.
    let adds_bos = meta.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(model == "llama" || pre(meta)? == "llama-bpe");
    document["post_processor"] = match bos {
        Some(id) if adds_bos => starts_with(&tokens[id as usize], id),
        _ => Value::Null,
    };
    let token = |id: Option<u32>| id.map(|id| tokens[id as usize].clone());
    Ok(GgufTokenizer { json: document.to_string().into_bytes(), eos_ids, bos_token: token(bos), eos_token: token(eos) })
}

fn token_types(meta: &Metadata<'_>, tokens: usize) -> Result<Vec<i64>, ModelFileError> {
    let key = "tokenizer.ggml.token_type";
    match meta.head.metadata.get(key) {
        Some(GgufValue::Integers(types)) if types.len() == tokens => Ok(types.clone()),
        Some(GgufValue::Integers(types)) => {
            Err(meta.key(key, format!("has {} entries for {tokens} tokens", types.len())))
        }
        Some(_) => Err(meta.key(key, "is not a list of whole numbers")),
        // Without types nothing would be a control token, and a tenant's text could not be told from markup.
        None => Err(meta.missing(key)),
    }
}

fn special_id(meta: &Metadata<'_>, key: &str, tokens: &[String]) -> Result<Option<u32>, ModelFileError> {
    match meta.integer(key)? {
        None => Ok(None),
        Some(id) if id < tokens.len() => Ok(Some(id as u32)),
        Some(id) => Err(meta.key(key, format!("{id} is outside the vocabulary of {}", tokens.len()))),
    }
}

fn pre<'a>(meta: &Metadata<'a>) -> Result<&'a str, ModelFileError> {
    Ok(meta.text("tokenizer.ggml.pre")?.unwrap_or("default"))
}

fn byte_level(meta: &Metadata<'_>, ids: &HashMap<&str, usize>) -> Result<Value, ModelFileError> {
    let merges = meta.texts("tokenizer.ggml.merges")?;
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        match merge.split_once(' ') {
            Some((left, right)) => pairs.push(json!([left, right])),
            None => return Err(meta.key("tokenizer.ggml.merges", format!("`{}` is not a pair", quoted(merge)))),
        }
    }
    let name = pre(meta)?;
    let Some(way) = PreTokenization::named(name) else {
        return Err(meta.unsupported(format!("pre-tokenization `{}`", quoted(name))));
    };
    Ok(json!({
        "normalizer": if way.composes { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": way.steps(),
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": bpe(ids, pairs, json!({
            "unk_token": Value::Null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": way.ignores_merges,
        })),
    }))
}

/// How text is cut into pieces before merging, inside which all merges happen.
struct PreTokenization {
    /// Unicode composition first.
    composes: bool,
    /// A piece that is a token as a whole is taken without merging.
    ignores_merges: bool,
    cut: Cut,
}

enum Cut {
    /// GPT-2's own pattern.
    Gpt2,
    /// Every digit alone, then GPT-2's pattern.
    DigitsThenGpt2,
    Pattern(&'static str),
}

// The patterns are part of the trained models, as fixed as the vocabularies.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl PreTokenization {
    fn named(name: &str) -> Option<Self> {
        let (composes, ignores_merges, cut) = match name {
            "gpt-2" => (false, false, Cut::Gpt2),
            "smollm" | "starcoder" => (false, false, Cut::DigitsThenGpt2),
            "llama-bpe" | "llama3" => (false, true, Cut::Pattern(LLAMA3)),
            "qwen2" => (true, false, Cut::Pattern(QWEN2)),
            "tekken" => (false, true, Cut::Pattern(TEKKEN)),
            _ => return None,
        };
        Some(Self { composes, ignores_merges, cut })
    }

    fn steps(&self) -> Value {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        match self.cut {
            Cut::Gpt2 => bytes(true),
            Cut::DigitsThenGpt2 => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, bytes(true),
            ]}),
            Cut::Pattern(pattern) => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}, bytes(false),
            ]}),
        }
    }
}

fn sentence_piece(meta: &Metadata<'_>, tokens: &[String], ids: &HashMap<&str, usize>) -> Result<Value, ModelFileError> {
    let key = "tokenizer.ggml.scores";
    let scores = match meta.head.metadata.get(key) {
        Some(GgufValue::Floats(scores)) if scores.len() == tokens.len() => scores,
        Some(_) => return Err(meta.key(key, "is not one number per token")),
        None => return Err(meta.missing(key)),
    };
    let unknown = special_id(meta, "tokenizer.ggml.unknown_token_id", tokens)?;
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if meta.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": Value::Null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": bpe(ids, merges_from_scores(tokens, scores, ids), json!({
            "unk_token": unknown.map(|id| tokens[id as usize].as_str()),
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        })),
    }))
}

/// SentencePiece joins the neighbours whose union has the best score. The same order as a list of merges: every way
/// to cut a token in two known tokens, best token first.
fn merges_from_scores(tokens: &[String], scores: &[f32], ids: &HashMap<&str, usize>) -> Vec<Value> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by(|left, right| scores[*right].total_cmp(&scores[*left]));
    let mut merges = Vec::new();
    for id in order {
        let token = tokens[id].as_str();
        let mut cuts: Vec<(usize, usize)> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| Some((*ids.get(&token[..at])?, *ids.get(&token[at..])?)))
            .collect();
        cuts.sort_unstable();
        merges.extend(cuts.into_iter().map(|(left, right)| json!([tokens[left], tokens[right]])));
    }
    merges
}

fn bpe(ids: &HashMap<&str, usize>, merges: Vec<Value>, mut settings: Value) -> Value {
    let vocab: Map<String, Value> = ids.iter().map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
    settings["type"] = json!("BPE");
    settings["dropout"] = Value::Null;
    settings["continuing_subword_prefix"] = Value::Null;
    settings["end_of_word_suffix"] = Value::Null;
    settings["vocab"] = Value::Object(vocab);
    settings["merges"] = Value::Array(merges);
    settings
}

fn added_tokens(tokens: &[String], types: &[i64]) -> Value {
    let added = tokens.iter().enumerate().filter(|(id, _)| matches!(types[*id], CONTROL | USER_DEFINED));
    added
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": types[id] == CONTROL,
            })
        })
        .collect()
}

fn starts_with(token: &str, id: u32) -> Value {
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}
