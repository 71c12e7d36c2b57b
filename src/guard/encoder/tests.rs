//! Of folders: tiny models of each family, whose outputs transformers computed
//! (`scripts/guard/tiny_models.py`), and what is refused.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_kernels::Precision;

use super::config::Config;
use super::tokens::Tokens;
use super::weights::Weights;
use super::{Encoder, EncoderError, EncoderScore, Window, spread};
use crate::Category;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../tests/fixtures/guard/tiny.json")).expect("the fixture is JSON")
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

/// The weights that the script gave them.
fn tensors(family: &Value) -> HashMap<String, Tensor> {
    let tensor = |(name, shape): (&String, &Value)| {
        let shape: Vec<usize> = numbers(shape).into_iter().map(|size| size as usize).collect();
        let scale = name.contains("LayerNorm.weight") || name.contains("layer_norm.weight");
        let number = |at: usize| 0.3 * (1.7 * at as f64 + name.len() as f64).sin() + f64::from(u8::from(scale));
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|at| number(at) as f32).collect();
        (name.clone(), Tensor::from_vec(numbers, shape, &Device::Cpu).expect("as many as the shape has"))
    };
    family["shapes"].as_object().expect("names and shapes").iter().map(tensor).collect()
}

/// A folder of the family's model, after `change` has been at its parts.
fn folder(family: usize, change: impl FnOnce(&mut Value, &mut HashMap<String, Tensor>, &mut Value)) -> TempDir {
    let mut fixture = fixture();
    let mut tokenizer = fixture["tokenizer"].take();
    let mut tensors = tensors(&fixture["families"][family]);
    let mut config = fixture["families"][family]["config"].take();
    change(&mut config, &mut tensors, &mut tokenizer);
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("config.json"), config.to_string()).expect("it is written");
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("it is written");
    safetensors::save(&tensors, folder.path().join("model.safetensors")).expect("it is written");
    folder
}

fn open(folder: &Path) -> Encoder {
    Encoder::open(folder).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(family: usize, change: impl FnOnce(&mut Value, &mut HashMap<String, Tensor>, &mut Value)) -> String {
    Encoder::open(folder(family, change).path()).expect_err("it does not fit").to_string()
}

#[test]
fn models_of_each_family_say_what_transformers_say() {
    let fixture = fixture();
    let texts: Vec<&str> = fixture["texts"].as_array().expect("texts").iter().filter_map(Value::as_str).collect();
    let families = fixture["families"].as_array().expect("families");
    assert_eq!((texts.len(), families.len()), (3, 5));
    for (at, family) in families.iter().enumerate() {
        let folder = folder(at, |_, _, _| {});
        let scores = open(folder.path()).score(&texts).expect("scores");
        for (score, outputs) in scores.iter().zip(family["probabilities"].as_array().expect("of each text")) {
            let outputs = numbers(outputs);
            let toxic = match at {
                0 | 2 => outputs[1],
                1 => outputs[0],
                3 => outputs[0].max(outputs[1]),
                _ => outputs[0] + outputs[1],
            };
            assert!((score.toxic - toxic).abs() < 2e-5, "{}: {score:?} {outputs:?}", family["config"]);
            match at {
                3 => assert!((score.of(Category::Threat).expect("named") - outputs[1]).abs() < 2e-5),
                4 => assert!((score.of(Category::Hate).expect("named") - outputs[0]).abs() < 2e-5),
                _ => assert_eq!(score.categories().count(), 0),
            }
        }
    }
}

#[test]
fn a_text_scores_the_same_whatever_is_beside_it() {
    let folder = folder(0, |_, _, _| {});
    let model = open(folder.path());
    let texts: Vec<String> =
        (0..300).map(|n| format!("{} fool {}", "abc ".repeat(n % 11), "z".repeat(n % 7))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = model.score(&texts).expect("scores");
    for (text, score) in texts.iter().zip(&together).step_by(17) {
        let alone = model.score(&[text]).expect("a score")[0];
        assert_eq!(alone, *score, "{text}");
    }
}

/// The embedded model on one of the two numeric paths.
fn embedded(precision: Precision) -> Encoder {
    let config = Config::parse(include_bytes!("../weights/stage2/config.json")).expect("sound");
    let tokenizer = include_bytes!("../weights/stage2/tokenizer.json");
    let tokens = Tokens::open(tokenizer, &config, Encoder::WINDOW, Encoder::OVERLAP).expect("sound");
    let weights = Weights::gguf(include_bytes!("../weights/stage2/model.gguf")).expect("sound");
    Encoder::new(config, tokens, &weights, precision).expect("sound")
}

/// What activations in 8 bits change of a score, at most and on average.
const ROUNDING: (f32, f32) = (0.04, 0.004);

#[test]
fn the_embedded_model_says_in_8_bits_nearly_what_it_says_in_floats() {
    let pairs = include_str!("../../../tests/fixtures/guard/contrast.jsonl");
    let text =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["text"].as_str().expect("a text").to_owned();
    let mut texts: Vec<String> = pairs.lines().step_by(9).map(text).collect();
    // Of more windows than one.
    texts.push(texts.join(" "));
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let [fast, exact] = [Precision::Fast, Precision::Exact].map(|precision| {
        let all = embedded(precision).score(&texts).expect("scores");
        let numbers = |score: &EncoderScore| {
            [score.toxic].into_iter().chain(score.categories().map(|(_, likely)| likely)).collect()
        };
        all.iter().map(numbers).collect::<Vec<Vec<f32>>>()
    });
    assert!(texts.len() > 100 && fast != exact);
    let apart: Vec<f32> = fast.iter().flatten().zip(exact.iter().flatten()).map(|(a, b)| (a - b).abs()).collect();
    let (worst, sum) = (apart.iter().fold(0.0, |a: f32, b| a.max(*b)), apart.iter().sum::<f32>());
    let mean = sum / apart.len() as f32;
    assert!(worst < ROUNDING.0 && mean < ROUNDING.1, "{worst} at most, {mean} on average");
}

#[test]
fn nothing_is_harmless_and_costs_nothing() {
    let folder = folder(0, |_, _, _| {});
    let model = open(folder.path());
    assert_eq!(model.score(&[]).expect("no scores"), []);
    let scores = model.score(&["", " \n\t", "a fool"]).expect("scores");
    assert!(scores[0].toxic == 0.0 && scores[1].toxic == 0.0 && scores[2].toxic > 0.0, "{scores:?}");
    assert!(scores.iter().all(|score| score.whole));
}

#[test]
fn windows_cover_every_token_and_overlap() {
    let folder = folder(0, |_, _, _| {});
    let model = open(folder.path()).model;
    // 40 positions: [CLS], 38 tokens, [SEP]; a quarter of them is shared.
    for count in 1..300 {
        let windows = model.tokens.windows(&"a b ".repeat(count)).expect("windows");
        assert!(windows.iter().all(|window| window[0] == 2 && window[window.len() - 1] == 3 && window.len() <= 40));
        let shared = 9 * (windows.len() - 1);
        assert_eq!(windows.iter().map(|window| window.len() - 2).sum::<usize>(), 2 * count + shared, "{count}");
        assert!(windows.windows(2).all(|pair| pair[0][30..39] == pair[1][1..10]), "{windows:?}");
    }
}

#[test]
fn of_a_long_text_the_worst_window_counts() {
    let folder = folder(0, |_, _, _| {});
    let model = open(folder.path());
    // Windows begin at each 29th token.
    let words =
        |range: std::ops::Range<usize>| range.map(|at| ["x ", "you ", "b ", "fool "][at % 7 % 4]).collect::<String>();
    let parts: Vec<String> = [0..38, 29..67, 58..80].map(words).into();
    let parts = model.score(&parts.iter().map(String::as_str).collect::<Vec<_>>()).expect("scores");
    let all = model.score(&[&words(0..80)]).expect("a score")[0];
    let worst = parts.iter().map(|part| part.toxic).fold(0.0, f32::max);
    assert!(all.whole && (all.toxic - worst).abs() < 1e-5, "{all:?} {parts:?}");
    assert!(parts.iter().any(|part| worst - part.toxic > 1e-4), "{parts:?}");
    assert!(!model.score(&["a ".repeat(50_000).as_str()]).expect("a score")[0].whole);
}

#[test]
fn windows_of_a_long_text_are_spread_from_its_first_to_its_last() {
    for count in 0..300_u32 {
        let windows: Vec<Window> = (0..count).map(|at| vec![at]).collect();
        let chosen: Vec<u32> = spread(windows, 32).map(|window| window[0]).collect();
        assert_eq!(chosen.len(), count.min(32) as usize);
        assert!(count == 0 || chosen[0] == 0 && chosen[chosen.len() - 1] == count - 1, "{chosen:?}");
        let gap = count.div_ceil(31);
        assert!(chosen.windows(2).all(|pair| (1..=gap.max(1)).contains(&(pair[1] - pair[0]))), "{chosen:?}");
    }
}

#[test]
fn halves_are_read_as_well() {
    let whole = open(folder(0, |_, _, _| {}).path()).score(&["you are a fool"]).expect("a score")[0];
    let half = |_: &mut Value, tensors: &mut HashMap<String, Tensor>, _: &mut Value| {
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(candle_core::DType::BF16).expect("a float");
        }
    };
    let half = open(folder(0, half).path()).score(&["you are a fool"]).expect("a score")[0];
    assert!((whole.toxic - half.toxic).abs() < 0.01 && whole != half, "{whole:?} {half:?}");
}

#[test]
fn a_folder_that_does_not_fit_is_refused_with_the_file_and_the_field() {
    let cases = [
        (refusal(0, |config, _, _| config["model_type"] = json!("gpt2")), "config.json: model_type: \"gpt2\""),
        (refusal(0, |config, _, _| config["hidden_act"] = json!("silu")), "config.json: hidden_act: "),
        (refusal(0, |config, _, _| config["num_attention_heads"] = json!(3)), "config.json: num_attention_heads: "),
        (refusal(0, |config, _, _| config["num_hidden_layers"] = json!(0)), "config.json: num_hidden_layers: "),
        (refusal(0, |config, _, _| config["hidden_size"] = json!("large")), "config.json: JSON: "),
        (
            refusal(0, |config, _, _| config["max_position_embeddings"] = json!(4)),
            "config.json: max_position_embeddings: ",
        ),
        (
            refusal(0, |config, _, _| config["position_embedding_type"] = json!("relative_key")),
            "config.json: position_embedding_type: ",
        ),
        (refusal(0, |config, _, _| config["id2label"] = json!({"0": "sad", "1": "glad"})), "config.json: id2label: "),
        (
            refusal(0, |config, _, _| config["id2label"] = json!({"0": "toxic", "2": "neutral"})),
            "config.json: id2label: ",
        ),
        (refusal(0, |config, _, _| config["vocab_size"] = json!(30)), "tokenizer.json: model.vocab: "),
        (refusal(0, |_, _, tokenizer| *tokenizer = json!({"version": "1.0"})), "tokenizer.json: JSON: "),
        (
            refusal(0, |_, tensors, _| drop(tensors.remove("bert.encoder.layer.1.output.dense.bias"))),
            "model.safetensors: bert.encoder.layer.1.output.dense.bias: there is no such tensor",
        ),
        (
            refusal(2, |config, _, _| config["hidden_dim"] = json!(25)),
            "model.safetensors: distilbert.transformer.layer.0.ffn.lin1.weight: its shape",
        ),
        (
            refusal(3, |_, tensors, _| drop(tensors.remove("classifier.out_proj.weight"))),
            "model.safetensors: classifier.out_proj.weight: ",
        ),
    ];
    for (error, beginning) in cases {
        assert!(error.starts_with(beginning), "{error} does not begin with {beginning}");
    }
}

#[test]
fn a_file_that_is_missing_or_cut_is_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = folder(0, |_, _, _| {});
        let path = folder.path().join(file);
        let whole = fs::read(&path).expect("it is there");
        fs::write(&path, &whole[..whole.len() / 2]).expect("it is written");
        let error = Encoder::open(folder.path()).expect_err("half of it is missing");
        assert!(error.to_string().starts_with(file), "{error}");
        fs::remove_file(&path).expect("it is there");
        let error = Encoder::open(folder.path()).expect_err("it is missing");
        assert!(matches!(&error, EncoderError::Unreadable { file, .. } if *file == path), "{error}");
    }
}
