//! Stage 2: a small transformer that reads whole sentences, for what stage 1 finds
//! doubtful. Who is meant, what is denied and what is only quoted is not in the words.
//!
//! The embedded model is described in `weights/stage2/MODEL_CARD.md`;
//! [`Encoder::open`] takes another one instead, from a folder as Hugging Face has it.
//!
//! The embedded model is computed in 8 bits, as it is stored; one of a folder in 32-bit
//! floats. Either way with the engine's kernels, whose law holds here as well: a text's
//! score has the same bits whatever else is in the call, and on every processor.
//!
//! A call computes on the thread that calls: as many cores are busy as there are callers.
//!
//! Not here: which texts are doubtful, how many callers there are, and who waits.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tenantry_kernels::Precision;

use crate::linear::Category;
use crate::normalise::Normalised;

mod attention;
mod bert;
mod config;
mod error;
mod labels;
mod linear;
mod tokens;
mod weights;

use bert::Bert;
use config::Config;
pub use error::EncoderError;
use error::Result;
use tokens::{Tokens, Window};
use weights::Weights;

/// A model. Clones share it; it is never changed, and has no memory of texts.
#[derive(Debug, Clone)]
pub struct Encoder {
    model: Arc<Model>,
}

#[derive(Debug)]
struct Model {
    config: Config,
    tokens: Tokens,
    network: Bert,
}

/// How likely, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderScore {
    /// Of the most toxic window, where a text has several.
    pub toxic: f32,
    categories: [Option<f32>; Category::ALL.len()],
    /// All of the text was read; see [`Encoder::MOST_WINDOWS`].
    pub whole: bool,
}

// === impl EncoderScore ===

impl EncoderScore {
    /// Of nothing.
    const HARMLESS: Self = Self { toxic: 0.0, categories: [None; Category::ALL.len()], whole: true };

    /// That the text is of this kind; `None` where the model does not tell it. The
    /// embedded model tells all.
    pub fn of(&self, category: Category) -> Option<f32> {
        self.categories[category as usize]
    }

    /// Those that the model tells, in the order of [`Category::ALL`].
    pub fn categories(&self) -> impl Iterator<Item = (Category, f32)> {
        Category::ALL.into_iter().zip(self.categories).filter_map(|(category, likely)| Some((category, likely?)))
    }
}

// === impl Encoder ===

impl Encoder {
    /// Tokens that are read together, the two special ones included; a word has 1.3 of
    /// them. Models with fewer positions read as many as they have.
    pub const WINDOW: usize = 128;
    /// Tokens that a window shares with the one before.
    pub const OVERLAP: usize = 32;
    /// A text of more windows is read in so many of them, evenly spread from the first
    /// to the last: some 3 000 tokens, and a bound on what a call costs.
    pub const MOST_WINDOWS: usize = 32;
    /// Tokens that go through the network at once; more are taken in turns. What is
    /// computed of them, about 5 MB for the embedded model, should stay in the cache.
    const TOGETHER: usize = 256;

    /// The model that is part of the binary. It is made ready once, in some 50 ms, and
    /// holds about 40 MB from then on.
    ///
    /// # Errors
    ///
    /// For a binary whose weights are damaged.
    pub fn embedded() -> std::result::Result<Self, EncoderError> {
        static ONCE: OnceLock<Encoder> = OnceLock::new();
        if let Some(encoder) = ONCE.get() {
            return Ok(encoder.clone());
        }
        let config = Config::parse(include_bytes!("../weights/stage2/config.json"))?;
        let tokenizer = include_bytes!("../weights/stage2/tokenizer.json");
        let tokens = Tokens::open(tokenizer, &config, Self::WINDOW, Self::OVERLAP)?;
        let weights = Weights::gguf(include_bytes!("../weights/stage2/model.gguf"))?;
        let encoder = Self::new(config, tokens, &weights, Precision::Fast)?;
        Ok(ONCE.get_or_init(|| encoder).clone())
    }

    /// A model in a folder as Hugging Face's transformers write it: `config.json` (of
    /// type `bert`, `distilbert`, `roberta` or `xlm-roberta`), `model.safetensors` with
    /// a classifier for sequences, and `tokenizer.json`.
    ///
    /// Which outputs are toxic is read from `id2label`: of two labels, the softmax of
    /// the one whose name says so (or of `LABEL_1`); of more, the sum of those that do;
    /// a single one is a sigmoid; with `problem_type` `multi_label_classification`, it
    /// is the greatest sigmoid of those that are not called neutral.
    ///
    /// # Errors
    ///
    /// For a file that cannot be read, and for one that does not fit: which, and its
    /// field.
    pub fn open(folder: &Path) -> std::result::Result<Self, EncoderError> {
        let read = |name: &str| {
            let file = folder.join(name);
            fs::read(&file).map_err(|error| EncoderError::Unreadable { file, reason: error.to_string() })
        };
        let config = Config::parse(&read(config::FILE)?)?;
        let tokens = Tokens::open(&read(tokens::FILE)?, &config, Self::WINDOW, Self::OVERLAP)?;
        let weights = Weights::safetensors(&read(weights::FILE)?)?;
        Self::new(config, tokens, &weights, Precision::Exact)
    }

    fn new(config: Config, tokens: Tokens, weights: &Weights<'_>, precision: Precision) -> Result<Self> {
        let network = Bert::load(&config, weights, precision)?;
        Ok(Self { model: Arc::new(Model { config, tokens, network }) })
    }

    /// One score for each text, in their order. An empty text is harmless. Blocks for as
    /// long as it computes: 4.4 ms of one core with AVX-512 for 200 characters with the
    /// embedded model (`load-tests/guard`).
    ///
    /// # Errors
    ///
    /// Where a text cannot be split or computed, which is a fault of the model's files.
    pub fn score(&self, texts: &[&str]) -> std::result::Result<Vec<EncoderScore>, EncoderError> {
        self.model.score(texts)
    }
}

impl Model {
    fn score(&self, texts: &[&str]) -> Result<Vec<EncoderScore>> {
        let mut scores = vec![EncoderScore::HARMLESS; texts.len()];
        let mut windows: Vec<(usize, Window)> = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let all = if self.config.normal_form {
                self.tokens.windows(Normalised::of(text).text())?
            } else {
                self.tokens.windows(text)?
            };
            scores[at].whole = all.len() <= Encoder::MOST_WINDOWS;
            windows.extend(spread(all, Encoder::MOST_WINDOWS).map(|window| (at, window)));
        }
        let mut rest = windows.as_slice();
        while !rest.is_empty() {
            let (some, others) = rest.split_at(fitting(rest));
            let ids: Vec<&[u32]> = some.iter().map(|(_, window)| window.as_slice()).collect();
            for ((at, _), logits) in some.iter().zip(self.network.logits(&ids)?) {
                let (score, whole) = (self.config.labels.score(&logits), scores[*at].whole);
                // The first window counts even at 0, for its categories.
                if score.toxic >= scores[*at].toxic {
                    scores[*at] = EncoderScore { whole, ..score };
                }
            }
            rest = others;
        }
        Ok(scores)
    }
}

/// `most` of the windows, the first and the last among them.
fn spread(windows: Vec<Window>, most: usize) -> impl Iterator<Item = Window> {
    let count = windows.len();
    let chosen = move |at: usize| {
        // Of the places 0, (count − 1) / (most − 1), … each once, rounded down.
        let nth = (at * (most - 1)).div_ceil((count - 1).max(1));
        count <= most || nth < most && nth * (count - 1) / (most - 1) == at
    };
    windows.into_iter().enumerate().filter(move |(at, _)| chosen(*at)).map(|(_, window)| window)
}

/// How many of the windows, one at least, have not too many tokens together.
fn fitting(windows: &[(usize, Window)]) -> usize {
    let mut tokens = 0;
    let fits = windows.iter().take_while(|(_, window)| {
        tokens += window.len();
        tokens <= Encoder::TOGETHER
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests;
