//! The judging half of the guard: text in, verdicts out. Stages 0 and 1 are pure: no
//! I/O, no threads, locks or clocks. Stage 2 opens files where it is told to. Nothing
//! here knows of tenants, routes or streams.
//!
//! A text is normalised once ([`Normalised`]) and then read by the first two stages;
//! the third is for few:
//!
//! - stage 0, [`Lists`]: words and regular expressions that an operator or a tenant
//!   wrote down, each with what is to be done;
//! - stage 1, [`Linear`]: a small model that is embedded in the binary and says how
//!   likely the text is toxic, of which kind, and which part of it carries that;
//! - stage 2, [`Encoder`]: a small transformer, embedded as well or from a folder, for
//!   texts that score [`Linear::DOUBTFUL`] or more. It costs a thousand times as much
//!   and understands who is meant; [`combined()`] makes one score of both.
//!
//! ```
//! use tenantry_guard::{Action, Entry, Linear, Lists, Normalised, Pattern};
//!
//! let lists = Lists::new([Entry {
//!     pattern: Pattern::Word("bonus".to_owned()),
//!     action: Action::Redact,
//!     category: "house rules".to_owned(),
//! }])?;
//! let text = "Your B.O.N.U.$ is here";
//! let normalised = Normalised::of(text);
//! assert_eq!(&text[lists.find(text, &normalised)[0].span.clone()], "B.O.N.U.$");
//! assert!(Linear::embedded().score(&normalised).toxic < Linear::THRESHOLD);
//! # Ok::<_, tenantry_guard::ListError>(())
//! ```
//!
//! Every span is a byte range of the original text, on character boundaries.
//!
//! Covered: insult, hate, threat and profanity, in English. Not covered: sexual
//! content, self-harm, violence; see `weights/MODEL_CARD.md`.

#![forbid(unsafe_code)]

mod combined;
mod encoder;
mod linear;
mod lists;
mod normalise;
mod whole;

pub use combined::{THRESHOLD, combined};
pub use encoder::{Encoder, EncoderError, EncoderScore};
pub use linear::{Category, Linear, Read, Score, Tail, Window, features};
pub use lists::{Action, Entry, Hit, ListError, Lists, Pattern};
pub use normalise::{Normalised, next_cut, settled};
pub use whole::Whole;
