//! The embedded model of stage 2 against what PyTorch says of it
//! (`scripts/guard/quantise_stage2.py`).

use serde::Deserialize;
use tenantry_guard::{Category, Encoder, EncoderScore, Linear, Normalised, THRESHOLD, combined};

#[derive(Deserialize)]
struct Row {
    text: String,
    /// By the weights before they were rounded to 8 bits: toxic, and each kind given it.
    float: Vec<f32>,
    /// By the rounded ones.
    rounded: Vec<f32>,
}

/// Of the rounding to 8 bits, in probability.
const ROUNDING: f32 = 0.05;
/// Of activations in 8 bits, which PyTorch does not have.
const ACTIVATIONS: f32 = 0.04;

fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("../../../tests/fixtures/guard/stage2.json")).expect("rows")
}

fn encoder() -> Encoder {
    Encoder::embedded().expect("the embedded model is sound")
}

fn scores(texts: &[&str]) -> Vec<EncoderScore> {
    encoder().score(texts).expect("scores")
}

fn both(text: &str) -> f32 {
    combined(Linear::embedded().score(&Normalised::of(text)).toxic, scores(&[text])[0].toxic)
}

#[test]
fn it_says_what_it_said_where_it_was_trained() {
    let rows = rows();
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    assert!(rows.len() > 10);
    for (row, score) in rows.iter().zip(scores(&texts)) {
        let near = |a: f32, b: f32, tolerance: f32| (a - b).abs() < tolerance;
        assert!(near(score.toxic, row.rounded[0], ACTIVATIONS), "{}: {score:?} {:?}", row.text, row.rounded);
        assert!(near(score.toxic, row.float[0], ROUNDING), "{}: {score:?} {:?}", row.text, row.float);
        for (category, given) in Category::ALL.into_iter().zip(&row.rounded[1..]) {
            let likely = score.of(category).expect("it tells all");
            assert!(near(likely, row.rounded[0] * given, ACTIVATIONS), "{}: {category:?} {likely}", row.text);
        }
    }
}

#[test]
fn it_does_not_depend_on_who_is_beside() {
    let rows = rows();
    let texts: Vec<&str> = rows.iter().cycle().take(40).map(|row| row.text.as_str()).collect();
    let together = scores(&texts);
    for (text, score) in texts.iter().zip(&together).take(rows.len()) {
        let alone = scores(&[text])[0];
        assert_eq!(alone, *score, "{text}");
    }
}

#[test]
fn an_insult_in_a_long_text_is_found() {
    let page = "The committee met on Tuesday to discuss the new library, and heard a report on its roof. ".repeat(30);
    let insult = "You stupid worthless idiot, shut up. ";
    let scores = scores(&[&page, &format!("{page}{}{page}", insult.repeat(3)), &format!("{page}{}", insult.repeat(3))]);
    assert!(scores[0].toxic < 0.2 && scores[1].toxic > 0.5 && scores[2].toxic > 0.5, "{scores:?}");
    assert!(scores.iter().all(|score| score.whole));
}

#[test]
fn it_is_shared_between_threads() {
    let alone = scores(&["you are a stupid worthless idiot"])[0];
    let threads: Vec<_> =
        (0..4).map(|_| std::thread::spawn(move || scores(&["you are a stupid worthless idiot"; 3]))).collect();
    for thread in threads {
        let scores = thread.join().expect("no panic");
        assert!(scores.iter().all(|score| *score == alone), "{scores:?}");
    }
}

#[test]
fn together_they_block_insults_and_let_what_only_sounds_bad_pass() {
    for bad in ["you are a stupid worthless idiot", "Only a complete idiot would ask that, you stupid fool."] {
        assert!(both(bad) >= THRESHOLD, "{bad}: {}", both(bad));
    }
    for fine in [
        "How do I kill a Python process?",
        "You are not an idiot at all.",
        "Hatred of immigrants has no place in our schools.",
        "Rabbits eat hay and grass.",
    ] {
        assert!(both(fine) < THRESHOLD, "{fine}: {}", both(fine));
    }
}
