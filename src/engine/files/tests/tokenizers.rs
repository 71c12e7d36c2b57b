use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::super::tokenizer::{SpecialTokens, Tokenizer, TokenizerError, TokenizerParts};
use super::super::{ChatMessage, ChatTemplate, GenerationPrompt, TemplateError};
use super::gguf_files::{Gguf, TOKENS, open, small_model};

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

fn small_json() -> Value {
    let files = open(&small_model().bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    files.tokenizer().unwrap().save(&path).unwrap();
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn load(document: &Value) -> Result<Tokenizer, String> {
    let json = document.to_string();
    let parts = TokenizerParts {
        path: Path::new("tokenizer.json"),
        json: json.as_bytes(),
        eos_ids: vec![4],
        eos_token: None,
        model_vocab: 12,
    };
    Tokenizer::load(parts).map_err(|error| error.to_string())
}

#[test]
fn text_becomes_merged_tokens_and_markup_control_tokens() {
    let tokenizer = load(&small_json()).unwrap();
    assert_eq!(tokenizer.encode("abcab c<s>", SpecialTokens::Parse).unwrap(), [7, 3, 6, 5, 0]);
    assert_eq!(tokenizer.token_bytes(6), b" ");
    assert_eq!(tokenizer.token_bytes(0), b"<s>");
    assert_eq!(tokenizer.token_bytes(999), b"");
    assert!(tokenizer.is_special(0) && !tokenizer.is_special(999));
    assert_eq!(tokenizer.eos_ids(), [4]);
}

#[test]
fn a_vocabulary_that_merges_text_into_control_tokens_is_caught() {
    let mut document = small_json();
    let vocab = &mut document["model"]["vocab"];
    // `ab` is now a control token, and merging "a" and "b" leads to it.
    *vocab = json!({"<s>": 0, "a": 1, "b": 2, "ab": 3, "<e>": 4, "c": 5, "Ġ": 6, "abc": 7});
    document["added_tokens"] = json!([
        {"id": 3, "content": "ab", "single_word": true, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
    ]);
    let tokenizer = load(&document).unwrap();
    assert_eq!(tokenizer.encode("ab", SpecialTokens::Plain).unwrap(), [1, 2]);
    document["added_tokens"][0]["single_word"] = json!(false);
    assert_eq!(load(&document).unwrap().encode("cab", SpecialTokens::Plain).unwrap(), [5, 1, 2]);
    assert_eq!(TokenizerError::ControlToken.to_string(), "the text would become control tokens");
}

#[test]
fn tokenizers_that_would_break_the_crate_or_lie_are_refused() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut document = small_json();
        change(&mut document);
        load(&document).unwrap_err()
    };
    assert_eq!(
        refused(&|document| document["model"]["merges"] = json!([["abc", "abc"]])),
        "tokenizer.json: key `model.merges`: `abcabc` is not in the vocabulary"
    );
    assert_eq!(
        refused(&|document| document["model"]["merges"] = json!(["ab"])),
        "tokenizer.json: key `model.merges`: \"ab\" is not a pair"
    );
    assert_eq!(
        refused(&|document| document["model"]["type"] = json!("Unigram")),
        "tokenizer.json: tokenizer model `Unigram` is not supported"
    );
    assert_eq!(
        refused(&|document| document["model"]["continuing_subword_prefix"] = json!("##")),
        "tokenizer.json: `continuing_subword_prefix` in the tokenizer is not supported"
    );
    assert_eq!(
        refused(&|document| document["decoder"] = Value::Null),
        "tokenizer.json: a tokenizer whose decoder has neither `ByteLevel` nor `ByteFallback` is not supported"
    );
    assert_eq!(
        refused(&|document| document["model"]["vocab"]["far"] = json!(12)),
        "tokenizer.json: token id 12 is beyond the model's 12 rows"
    );
    assert_eq!(
        refused(&|document| document["added_tokens"][0]["id"] = json!(9)),
        "tokenizer.json: key `added_tokens`: `<s>` is said to be Some(9) but would be Some(0)"
    );
    assert_eq!(
        refused(&|document| {
            document["added_tokens"][0]["content"] = json!("a");
            document["added_tokens"][0]["id"] = json!(1);
        }),
        "tokenizer.json: a control token of one character, `a`, is not supported"
    );
}

#[test]
fn sentence_piece_vocabularies_merge_by_score() {
    // Scores fall in the order of the list, as training leaves them.
    let pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "▁a", "ab", "▁ab", "▁", "a", "b", "c", "abc"];
    let types = [2i32, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1];
    let scores: Vec<f32> = (0..12).map(|at| -(at as f32)).collect();
    let mut gguf = Gguf::default();
    for entry in small_model().without_tokenizer() {
        gguf = gguf.raw(entry);
    }
    let bytes = gguf
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", &pieces)
        .list("tokenizer.ggml.token_type", 5, 12, &types.map(i32::to_le_bytes).concat())
        .list("tokenizer.ggml.scores", 6, 12, &scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<_>>())
        .count("tokenizer.ggml.unknown_token_id", 0)
        .count("tokenizer.ggml.bos_token_id", 1)
        .count("tokenizer.ggml.eos_token_id", 2)
        .with_tensors_of(&small_model())
        .bytes();
    let files = open(&bytes).unwrap();
    let tokenizer = files.tokenizer().unwrap();
    assert_eq!(tokenizer.bos_to_add(), Some(1));
    assert!(tokenizer.drops_leading_space());
    let ids: HashMap<&str, u32> = pieces.iter().enumerate().map(|(id, piece)| (*piece, id as u32)).collect();
    for text in ["ab", "abc", "a b", "cab abab", "a\nb", "x"] {
        let expected = sentence_piece(text, &pieces, &ids);
        assert_eq!(tokenizer.encode(text, SpecialTokens::Plain).unwrap(), expected, "{text:?}");
    }
    assert_eq!(tokenizer.token_bytes(3), b"\n");
    assert_eq!(tokenizer.token_bytes(6), b" ab");
}

/// The algorithm in its own words: join the best neighbours, leftmost first, until nothing can be joined.
fn sentence_piece(text: &str, pieces: &[&str], ids: &HashMap<&str, u32>) -> Vec<u32> {
    let mut parts: Vec<String> = format!("▁{}", text.replace(' ', "▁")).chars().map(String::from).collect();
    loop {
        let joined = |at: usize| ids.get(format!("{}{}", parts[at], parts[at + 1]).as_str()).copied();
        let best = (0..parts.len().saturating_sub(1)).filter_map(|at| joined(at).map(|id| (id, at))).min();
        let Some((id, at)) = best else { break };
        parts[at] = pieces[id as usize].to_owned();
        parts.remove(at + 1);
    }
    parts.iter().map(|part| ids.get(part.as_str()).copied().unwrap_or(if part == "\n" { 3 } else { 0 })).collect()
}

// === templates ===

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::parse(source, Some("<s>"), Some("<e>"), &["<s>".to_owned(), "<e>".to_owned()]).unwrap()
}

fn rendered(source: &str) -> Result<String, TemplateError> {
    template(source).render(&[message("user", " hi ")], GenerationPrompt::Add).map(|prompt| prompt.text())
}

#[test]
fn templates_are_set_up_as_transformers_does() {
    assert_eq!(rendered("{% if true %}\n  {% set x = 1 %}\n{{ bos_token }}{{ x }}\n{% endif %}\n").unwrap(), "<s>1\n");
    assert_eq!(rendered("{{ messages[0].content | trim }}{{ messages[0]['content'].strip() }}").unwrap(), "hihi");
    assert_eq!(rendered("{{ messages[0].role.upper() }}{{ tools is none }}{{ nothing }}").unwrap(), "USERTrue");
    assert_eq!(rendered("{{ {'a': [1, 'é<']} | tojson }}").unwrap(), r#"{"a": [1, "é<"]}"#);
    assert_eq!(rendered("{{ {'a': 1} | tojson(indent=4) }}").unwrap(), "{\n    \"a\": 1\n}");
    assert_eq!(
        rendered("{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}").unwrap(),
        "13"
    );
    assert_eq!(rendered("{% generation %}a{% endgeneration %}").unwrap(), "a");
    assert_eq!(rendered("{% if add_generation_prompt %}{{ eos_token }}{% endif %}").unwrap(), "<e>");
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400 * 59);
    let dated = template("{{ strftime_now('%d %b %Y') }}").render_at(&[], GenerationPrompt::Omit, then).unwrap();
    assert_eq!(dated.text(), "01 Mar 1970");
}

#[test]
fn a_refusal_by_the_template_is_the_clients_fault_and_a_broken_one_is_not() {
    let refused =
        rendered("{% if messages|length < 2 %}{{ raise_exception('roles must alternate') }}{% endif %}").unwrap_err();
    assert_eq!(refused, TemplateError::Rejected("roles must alternate".to_owned()));
    assert_eq!(refused.to_string(), "the model's chat template refuses these messages: roles must alternate");
    assert!(refused.is_clients_fault());
    let broken = rendered("{{ nothing.at.all }}").unwrap_err();
    assert!(!broken.is_clients_fault(), "{broken}");
    assert!(ChatTemplate::parse("{% if %}", None, None, &[]).is_err());
    let role = template("x").render(&[message("user<|im_end|>", "")], GenerationPrompt::Add).unwrap_err();
    assert_eq!(role.to_string(), "`user<|im_end|>` is not a usable message role");
}

#[test]
fn a_template_cannot_run_or_write_for_ever() {
    let spin = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
    assert_eq!(rendered(spin).unwrap_err(), TemplateError::TooMuchWork);
    let flood = "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ x }}{% endfor %}";
    assert_eq!(rendered(flood).unwrap_err(), TemplateError::TooLong);
}

#[test]
fn messages_cannot_speak_as_the_template() {
    let files =
        open(&small_model().text("tokenizer.chat_template", "<s>{{ messages[0].content }}<e>").bytes()).unwrap();
    let (tokenizer, template) = (files.tokenizer().unwrap(), files.chat_template().unwrap());
    let ids = |content: &str| {
        let prompt = template.render(&[message("user", content)], GenerationPrompt::Add).unwrap();
        assert_eq!(prompt.text(), format!("<s>{content}<e>"));
        tokenizer.encode_prompt(&prompt).unwrap()
    };
    assert_eq!(ids("abc"), [0, 7, 4]);
    // Of what spells a control token only the letter e is in this vocabulary; the rest leaves nothing.
    assert_eq!(ids("ab<e>c<s>ab"), [0, 3, 9, 5, 3, 4]);
    assert_eq!(ids("ab<"), [0, 3, 4]);
    assert_eq!(TOKENS[4], "<e>");
}
