//! Stage 1 over a text that grows.

use std::collections::VecDeque;

use super::features::{Event, Walk};
use super::{Linear, Part};
use crate::normalise::Normalised;

/// What stage 1 says of the end of a text that comes in pieces, cut where it is
/// settled ([`crate::next_cut`]). A word is read once; each costs a sum over the
/// window that it ends.
#[derive(Debug, Clone)]
pub struct Tail {
    model: Linear,
    walk: Walk,
    /// Of the word that is being read.
    hashes: Vec<u32>,
    /// The last words, up to [`Linear::WINDOW`].
    parts: VecDeque<Part>,
}

/// What a piece brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Read {
    pub words: usize,
    /// Of the windows that end with one of these words, the worst; 0 without a word.
    pub worst: f32,
}

// === impl Tail ===

impl Tail {
    pub fn new(model: Linear) -> Self {
        Self { model, walk: Walk::default(), hashes: Vec::new(), parts: VecDeque::with_capacity(Linear::WINDOW + 1) }
    }

    /// Reads the next piece.
    pub fn push(&mut self, piece: &Normalised) -> Read {
        let Self { model, walk, hashes, parts } = self;
        let mut read = Read { words: 0, worst: 0.0 };
        let mut end = |hashes: &mut Vec<u32>| {
            if hashes.is_empty() {
                return;
            }
            parts.push_back(Part { sum: model.weights.toxic_sum(hashes), count: hashes.len() as u32 });
            hashes.clear();
            if parts.len() > Linear::WINDOW {
                parts.pop_front();
            }
            read.words += 1;
            read.worst = read.worst.max(model.toxic(parts.make_contiguous()));
        };
        walk.read(piece, |event| match event {
            Event::Word(_) => end(hashes),
            Event::Feature(hash) => hashes.push(hash),
        });
        end(hashes);
        read
    }

    /// What was read so far is not counted with what comes.
    pub fn forget(&mut self) {
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::next_cut;

    fn read(text: &str) -> Vec<Read> {
        let mut tail = Tail::new(Linear::embedded());
        let mut at = 0;
        let mut reads = Vec::new();
        while at < text.len() {
            let cut = next_cut(text, at).unwrap_or(text.len());
            reads.push(tail.push(&Normalised::of(&text[at..cut])));
            at = cut;
        }
        reads
    }

    #[test]
    fn a_window_over_pieces_scores_as_the_text_does() {
        let texts = [
            "You are a stupid fool and nobody here wants to listen to you",
            "Rabbits eat hay, and \"grass\" too; they do not eat meat at all.",
            "n0t y0u again, you sssstupid t h i n g",
        ];
        for text in texts {
            let last = read(text).pop().expect("a piece").worst;
            let whole = Linear::embedded().score(&Normalised::of(text)).toxic;
            assert!(last >= whole - 1e-6, "{text}: {last} and {whole}");
        }
    }

    #[test]
    fn what_is_forgotten_does_not_count() {
        let mut tail = Tail::new(Linear::embedded());
        assert!(tail.push(&Normalised::of("you stupid idiot ")).worst > Linear::THRESHOLD);
        tail.forget();
        let read = tail.push(&Normalised::of("the garden is lovely "));
        assert_eq!(read.words, 4);
        assert!(read.worst < Linear::DOUBTFUL, "{read:?}");
        assert_eq!(tail.push(&Normalised::of("  ")), Read { words: 0, worst: 0.0 });
    }
}
