//! Text to tokens and tokens to bytes.
//!
//! What a user writes must never become a control token, whatever it spells; what a chat template writes must. Both
//! go through one pipeline here (control tokens cut out, normalise, cut into pieces, merge) which differs from the
//! `tokenizers` crate's own only in who may write control tokens. Added tokens that are not special, such as Qwen's
//! `<think>`, control nothing and are recognised everywhere, as everyone's tokenizer does.
//!
//! Not done here: BOS (see [`Tokenizer::bos_to_add`]), truncation, padding, and models other than BPE.

use std::path::Path;

use serde_json::Value;
use tokenizers::{AddedVocabulary, Model, NormalizedString, Normalizer, NormalizerWrapper};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Token};

use super::error::{ModelFileError, quoted};
use super::template::RenderedPrompt;
use super::token_bytes::{Spelling, TokenBytes};

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same added tokens, but blind to the special ones.
    plain: AddedVocabulary,
    bytes: TokenBytes,
    special: Vec<bool>,
    special_texts: Vec<String>,
    /// `<unk>` counts as special but is what ordinary text turns into when nothing else fits.
    unknown: Option<u32>,
    eos_ids: Vec<u32>,
    bos_to_add: Option<u32>,
    drops_leading_space: bool,
}

/// Who wrote the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Ours or the operator's: `<|im_start|>` is the control token.
    Parse,
    /// A user's: `<|im_start|>` is twelve characters of text.
    Plain,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("the text cannot be tokenized: {0}")]
    Failed(String),
    /// Not even one character at a time gives anything but a control token: a vocabulary built to be abused.
    #[error("the text would become control tokens")]
    ControlToken,
    #[error("{}: cannot be written: {source}", file.display())]
    Write { file: std::path::PathBuf, source: std::io::Error },
}

/// What [`Tokenizer::load`] is made from.
pub(crate) struct TokenizerParts<'a> {
    pub(crate) path: &'a Path,
    /// The content of a tokenizer.json.
    pub(crate) json: &'a [u8],
    pub(crate) eos_ids: Vec<u32>,
    /// Another end of sequence, named by its text.
    pub(crate) eos_token: Option<&'a str>,
    /// Rows of the embedding table: no token may be beyond it.
    pub(crate) model_vocab: usize,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    pub(crate) fn load(parts: TokenizerParts<'_>) -> Result<Self, ModelFileError> {
        let path = parts.path;
        let malformed = |reason: String| ModelFileError::malformed(path, reason);
        let document: Value = serde_json::from_slice(parts.json).map_err(|error| malformed(error.to_string()))?;
        check_model(path, &document)?;
        let spelling = spelling(path, &document["decoder"])?;
        let inner =
            tokenizers::Tokenizer::from_bytes(parts.json).map_err(|error| malformed(quoted(&error.to_string())))?;
        check_added_ids(path, &document, &inner)?;

        let vocab = inner.get_vocab(true);
        let size = vocab.values().max().map_or(0, |last| *last as usize + 1);
        if size == 0 {
            return Err(malformed("the vocabulary is empty".to_owned()));
        }
        if size > parts.model_vocab {
            let last = size - 1;
            return Err(malformed(format!("token id {last} is beyond the model's {} rows", parts.model_vocab)));
        }
        let added = inner.get_added_tokens_decoder();
        let mut bytes = TokenBytes::with_capacity(size);
        for (token, id) in &vocab {
            if !added.contains_key(id) {
                bytes.set(*id, &spelling.bytes(token));
            }
        }
        let mut special = vec![false; size];
        let mut special_texts = Vec::new();
        for (id, token) in &added {
            bytes.set(*id, token.content.as_bytes());
            special[*id as usize] = token.special;
            if token.special {
                special_texts.push(token.content.clone());
            }
        }
        special_texts.sort_unstable();
        if let Some(text) = special_texts.iter().find(|text| text.chars().nth(1).is_none()) {
            let what = format!("a control token of one character, `{}`,", quoted(text));
            return Err(ModelFileError::unsupported(path, what));
        }

        let mut eos_ids = parts.eos_ids;
        eos_ids.extend(parts.eos_token.and_then(|token| inner.token_to_id(token)));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        if let Some(id) = eos_ids.iter().find(|id| **id as usize >= parts.model_vocab) {
            return Err(malformed(format!("end-of-sequence id {id} is beyond the model's {} rows", parts.model_vocab)));
        }
        let mut plain = inner.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        let unknown = document["model"]["unk_token"].as_str().and_then(|token| inner.token_to_id(token));
        let first = inner.encode("", true).map_err(|error| malformed(error.to_string()))?.get_ids().first().copied();
        Ok(Self {
            plain,
            bytes,
            bos_to_add: first.filter(|id| special.get(*id as usize) == Some(&true) && !eos_ids.contains(id)),
            special,
            special_texts,
            unknown,
            eos_ids,
            drops_leading_space: document["decoder"].to_string().contains("\"Strip\""),
            inner,
        })
    }

    /// Tokens of a text written by one side only. Adds nothing in front.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        let vocabulary = match special {
            SpecialTokens::Parse => self.inner.get_added_vocabulary(),
            SpecialTokens::Plain => &self.plain,
        };
        self.finish(vocabulary.extract_and_normalize(self.inner.get_normalizer(), text))
    }

    /// Tokens of a rendered chat: control tokens where the template wrote them, text where a message did.
    pub fn encode_prompt(&self, prompt: &RenderedPrompt) -> Result<Vec<u32>, TokenizerError> {
        let Some(guard) = prompt.guard() else {
            return self.encode(prompt.guarded_text(), SpecialTokens::Parse);
        };
        // While the guard is still inside what messages spelled, control tokens found are the template's own. Only
        // then is it taken out, and the text normalised as the pipeline would have.
        let parsed = self.inner.get_added_vocabulary();
        let mut pieces = parsed.extract_and_normalize(None::<&NormalizerWrapper>, prompt.guarded_text());
        pieces
            .normalize(|piece| {
                piece.replace(guard, "")?;
                match self.inner.get_normalizer() {
                    Some(normalizer) => normalizer.normalize(piece),
                    None => Ok(()),
                }
            })
            .map_err(failed)?;
        self.finish(pieces)
    }

    /// Cuts and merges what is not a token yet.
    fn finish(&self, mut pieces: PreTokenizedString) -> Result<Vec<u32>, TokenizerError> {
        if let Some(cutter) = self.inner.get_pre_tokenizer() {
            cutter.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        pieces.tokenize(|piece| self.merge(piece)).map_err(failed)?;
        let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        let ids: Vec<u32> = splits
            .into_iter()
            .filter_map(|(_, _, tokens)| tokens.as_ref())
            .flat_map(|tokens| tokens.iter().map(|token| token.id))
            .collect();
        if ids.contains(&REFUSED) {
            return Err(TokenizerError::ControlToken);
        }
        Ok(ids)
    }

    /// Merging ordinary text must not end in a control token, even where the vocabulary has merges leading there.
    fn merge(&self, piece: &NormalizedString) -> tokenizers::Result<Vec<Token>> {
        let model = self.inner.get_model();
        let tokens = model.tokenize(piece.get())?;
        if !tokens.iter().any(|token| self.is_control(token.id)) {
            return Ok(tokens);
        }
        let mut single = Vec::new();
        for character in piece.get().chars() {
            single.extend(model.tokenize(character.encode_utf8(&mut [0; 4]))?);
        }
        for token in &mut single {
            if self.is_control(token.id) {
                token.id = REFUSED;
            }
        }
        Ok(single)
    }

    fn is_control(&self, id: u32) -> bool {
        self.is_special(id) && self.unknown != Some(id)
    }

    /// The token to put before a raw prompt, for models trained with one. Chat templates write it themselves.
    pub fn bos_to_add(&self) -> Option<u32> {
        self.bos_to_add
    }

    /// Exactly the bytes of this token; not always whole characters. Empty for an id without a token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id)
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Sorted, without repetition.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// One more than the largest id. The model may have more output rows than that.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// SentencePiece puts a space before the first word; an answer's first space is that one.
    pub fn drops_leading_space(&self) -> bool {
        self.drops_leading_space
    }

    /// The id of a token by its text.
    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub(crate) fn special_texts(&self) -> &[String] {
        &self.special_texts
    }

    /// Writes a tokenizer.json.
    pub fn save(&self, path: &Path) -> Result<(), TokenizerError> {
        let json = self.inner.to_string(false).map_err(failed)?;
        std::fs::write(path, json).map_err(|source| TokenizerError::Write { file: path.to_owned(), source })
    }
}

/// No vocabulary has this id: ids are checked against the model's rows.
const REFUSED: u32 = u32::MAX;

fn failed(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Failed(error.to_string())
}

/// Refuses what the crate would panic on (merges longer than any token, prefixes longer than a merge) and what the
/// byte table does not cover.
fn check_model(path: &Path, document: &Value) -> Result<(), ModelFileError> {
    let model = &document["model"];
    // Very old files leave the type out.
    let kind = model["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(ModelFileError::unsupported(path, format!("tokenizer model `{}`", quoted(kind))));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[key].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(ModelFileError::unsupported(path, format!("`{key}` in the tokenizer")));
        }
    }
    if model["dropout"].as_f64().is_some_and(|dropout| dropout != 0.0) {
        return Err(ModelFileError::unsupported(path, "`dropout` in the tokenizer"));
    }
    let Some(vocab) = model["vocab"].as_object() else {
        return Err(ModelFileError::key(path, "model.vocab", "is not an object"));
    };
    let Some(merges) = model["merges"].as_array() else {
        return Err(ModelFileError::key(path, "model.merges", "is not a list"));
    };
    let mut joined = String::new();
    for merge in merges {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) if pair.len() == 2 => pair[0].as_str().zip(pair[1].as_str()),
            _ => None,
        };
        let Some((left, right)) = pair else {
            let shown = quoted(&merge.to_string());
            return Err(ModelFileError::key(path, "model.merges", format!("{shown} is not a pair")));
        };
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if let Some(missing) = [left, right, &joined].into_iter().find(|token| !vocab.contains_key(*token)) {
            let reason = format!("`{}` is not in the vocabulary", quoted(missing));
            return Err(ModelFileError::key(path, "model.merges", reason));
        }
    }
    Ok(())
}

/// The crate numbers added tokens itself and only warns when the file says otherwise.
fn check_added_ids(path: &Path, document: &Value, inner: &tokenizers::Tokenizer) -> Result<(), ModelFileError> {
    for token in document["added_tokens"].as_array().into_iter().flatten() {
        let content = token["content"].as_str().unwrap_or_default();
        let declared = token["id"].as_u64();
        let given = inner.token_to_id(content).map(u64::from);
        if declared != given {
            let reason = format!("`{}` is said to be {declared:?} but would be {given:?}", quoted(content));
            return Err(ModelFileError::key(path, "added_tokens", reason));
        }
    }
    Ok(())
}

fn spelling(path: &Path, decoder: &Value) -> Result<Spelling, ModelFileError> {
    let steps = match decoder["type"].as_str() {
        Some("Sequence") => decoder["decoders"].as_array().map(Vec::as_slice).unwrap_or_default(),
        _ => std::slice::from_ref(decoder),
    };
    for step in steps {
        match step["type"].as_str() {
            Some("ByteLevel") => return Ok(Spelling::ByteLevel),
            Some("ByteFallback") => return Ok(Spelling::ByteFallback),
            _ => {}
        }
    }
    Err(ModelFileError::unsupported(path, "a tokenizer whose decoder has neither `ByteLevel` nor `ByteFallback`"))
}
