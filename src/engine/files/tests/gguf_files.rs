use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::super::{LayerTensor, ModelFiles, TensorName};
use super::small_config;

/// Name, shape as in the file, type and data of one tensor.
type Entry = (String, Vec<u64>, u32, Vec<u8>);

/// A GGUF file under construction, value by value.
#[derive(Clone, Default)]
pub(super) struct Gguf {
    metadata: Vec<Vec<u8>>,
    tensors: Vec<Entry>,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

impl Gguf {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.metadata.push([&text(key), &kind.to_le_bytes()[..], value].concat());
        self
    }

    pub(super) fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &text(value))
    }

    pub(super) fn count(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    fn float(self, key: &str, value: f32) -> Self {
        self.entry(key, 6, &value.to_le_bytes())
    }

    pub(super) fn list(self, key: &str, kind: u32, length: usize, items: &[u8]) -> Self {
        self.entry(key, 9, &[&kind.to_le_bytes()[..], &(length as u64).to_le_bytes(), items].concat())
    }

    pub(super) fn texts(self, key: &str, values: &[&str]) -> Self {
        let items: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
        self.list(key, 8, values.len(), &items)
    }

    fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|entry| !entry.starts_with(&text(key)));
        self
    }

    pub(super) fn without_tokenizer(self) -> Vec<Vec<u8>> {
        let tokenizer = |entry: &Vec<u8>| entry[8..].starts_with(b"tokenizer.");
        self.metadata.into_iter().filter(|entry| !tokenizer(entry)).collect()
    }

    pub(super) fn raw(mut self, entry: Vec<u8>) -> Self {
        self.metadata.push(entry);
        self
    }

    pub(super) fn with_tensors_of(mut self, other: &Self) -> Self {
        self.tensors = other.tensors.clone();
        self
    }

    fn tensor(mut self, name: &str, shape: &[usize], kind: u32, data: Vec<u8>) -> Self {
        // The file has the innermost dimension first.
        let shape = shape.iter().rev().map(|size| *size as u64).collect();
        self.tensors.push((name.to_owned(), shape, kind, data));
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        out.extend(self.metadata.concat());
        let mut data = Vec::new();
        for (name, shape, kind, content) in &self.tensors {
            out.extend(text(name));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(content);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).flat_map(|at| (at as f32).to_le_bytes()).collect()
}

pub(super) const TOKENS: [&str; 12] = ["<s>", "a", "b", "ab", "<e>", "c", "Ġ", "abc", "d", "e", "f", "g"];

pub(super) fn small_model() -> Gguf {
    let mut types = [1i32; 12];
    types[0] = 3;
    types[4] = 3;
    let types: Vec<u8> = types.iter().flat_map(|kind| kind.to_le_bytes()).collect();
    let mut gguf = Gguf::default()
        .text("general.architecture", "llama")
        .count("llama.block_count", 2)
        .count("llama.context_length", 64)
        .count("llama.embedding_length", 8)
        .count("llama.feed_forward_length", 16)
        .count("llama.attention.head_count", 2)
        .count("llama.attention.head_count_kv", 1)
        .float("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .texts("tokenizer.ggml.tokens", &TOKENS)
        .list("tokenizer.ggml.token_type", 5, 12, &types)
        .texts("tokenizer.ggml.merges", &["a b", "ab c"])
        .count("tokenizer.ggml.eos_token_id", 4);
    let config = small_config();
    for name in config.tensor_names() {
        let shape = name.shape(&config);
        gguf = gguf.tensor(&name.gguf(), &shape, 0, numbers(shape.iter().product()));
    }
    gguf
}

pub(super) fn open(bytes: &[u8]) -> Result<ModelFiles, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    let shown = format!("{}/", folder.path().display());
    ModelFiles::open(&path).map_err(|error| error.to_string().replace(&shown, ""))
}

fn refusal(gguf: &Gguf) -> String {
    open(&gguf.bytes()).unwrap_err()
}

#[test]
fn a_small_model_opens_and_its_heads_are_put_back_in_halves() {
    let files = open(&small_model().bytes()).unwrap();
    assert_eq!(files.config(), &small_config());
    let queries = files.tensor(TensorName::Layer(0, LayerTensor::Q)).unwrap();
    let first_column: Vec<f32> = queries.iter().step_by(8).copied().collect();
    // Rows 0 1 2 3 of each head were stored for pairs (0,1) (2,3); the halves are rows 0 2 and 1 3.
    assert_eq!(first_column, [0.0, 16.0, 8.0, 24.0, 32.0, 48.0, 40.0, 56.0]);
    let values = files.tensor(TensorName::Layer(0, LayerTensor::V)).unwrap();
    assert_eq!(values[..9], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], "values are not rotated");
    assert_eq!(files.tensor(TensorName::LmHead).unwrap(), files.tensor(TensorName::Embedding).unwrap());
    assert_eq!(
        files.tensor(TensorName::Layer(0, LayerTensor::QBias)).unwrap_err().to_string(),
        "model: tensor `model.layers.0.self_attn.q_proj.bias`: this model has no such tensor"
    );
}

#[test]
fn missing_and_wrong_keys_are_named() {
    let with = |key: &str, value: u32| refusal(&small_model().without(key).count(key, value));
    assert_eq!(refusal(&small_model().without("llama.block_count")), "m.gguf: key `llama.block_count`: is missing");
    assert_eq!(with("llama.block_count", 0), "m.gguf: number of layers is zero");
    assert_eq!(with("llama.expert_count", 8), "m.gguf: a mixture of experts is not supported");
    assert_eq!(with("general.architecture", 1), "m.gguf: key `general.architecture`: is not a text");
    assert_eq!(
        with("llama.rope.dimension_count", 2),
        "m.gguf: `llama.rope.dimension_count` that differs from the head size 4 is not supported"
    );
    assert_eq!(
        refusal(&small_model().text("llama.rope.scaling.type", "yarn")),
        "m.gguf: RoPE scaling `yarn` is not supported"
    );
    assert_eq!(refusal(&small_model().count("llama.block_count", 2)), "m.gguf: key `llama.block_count`: occurs twice");
    assert_eq!(with("general.alignment", 0), "m.gguf: key `general.alignment`: Integer(0) is not a usable alignment");
    let pre = small_model().without("tokenizer.ggml.pre").text("tokenizer.ggml.pre", "viking");
    assert_eq!(refusal(&pre), "m.gguf: pre-tokenization `viking` is not supported");
    let kind = small_model().without("tokenizer.ggml.model").text("tokenizer.ggml.model", "bert");
    assert_eq!(refusal(&kind), "m.gguf: tokenizer model `bert` is not supported");
    assert_eq!(
        with("tokenizer.ggml.eos_token_id", 12),
        "m.gguf: key `tokenizer.ggml.eos_token_id`: 12 is outside the vocabulary of 12"
    );
}

#[test]
fn tensors_must_be_there_once_in_their_shape_and_nothing_else() {
    let mut wrong = small_model();
    wrong.tensors[1].1 = vec![4, 2];
    assert_eq!(
        refusal(&wrong),
        "m.gguf: tensor `blk.0.attn_norm.weight`: has shape [2, 4], the configuration asks for [8]"
    );
    let mut missing = small_model();
    missing.tensors.remove(2);
    assert_eq!(refusal(&missing), "m.gguf: tensor `blk.0.attn_q.weight`: is missing");
    let mut double = small_model();
    double.tensors.push(double.tensors[1].clone());
    assert_eq!(refusal(&double), "m.gguf: tensor `blk.0.attn_norm.weight`: occurs twice");
    let extra = small_model().tensor("blk.0.attn_q.bias", &[8], 0, numbers(8));
    assert_eq!(refusal(&extra), "m.gguf: tensor `blk.0.attn_q.bias`: does not belong to this architecture");
    let factors = small_model().tensor("rope_freqs.weight", &[3], 0, numbers(3));
    assert_eq!(refusal(&factors), "m.gguf: 3 RoPE factors where 2 are needed");
}

#[test]
fn hostile_tensor_entries_are_refused() {
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut gguf = small_model();
        change(&mut gguf.tensors[1]);
        refusal(&gguf)
    };
    let norm = "m.gguf: tensor `blk.0.attn_norm.weight`:";
    assert_eq!(
        with(&|tensor| tensor.1 = vec![1 << 40, 1 << 40]),
        format!("{norm} dimension 1099511627776 makes no sense")
    );
    assert_eq!(with(&|tensor| tensor.1 = vec![0]), format!("{norm} dimension 0 makes no sense"));
    assert_eq!(with(&|tensor| tensor.1 = vec![1; 5]), format!("{norm} 5 dimensions; between 1 and 4 are allowed"));
    assert_eq!(with(&|tensor| tensor.2 = 99), format!("{norm} stored in GGML type 99, which is not supported"));
    assert_eq!(with(&|tensor| tensor.2 = 8), format!("{norm} rows of 8 numbers do not fill blocks of 32"));
    assert!(with(&|tensor| tensor.1 = vec![1 << 30]).contains("reach past the end of the file"));
    assert!(with(&|tensor| tensor.1 = vec![64]).contains("overlaps tensor `blk.0.attn_norm.weight`"));

    let mut gguf = small_model();
    gguf.tensors[1].3[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, gguf.bytes()).unwrap();
    let files = ModelFiles::open(&path).unwrap();
    let error = files.tensor(TensorName::Layer(0, LayerTensor::AttnNorm)).unwrap_err().to_string();
    assert!(error.ends_with("tensor `blk.0.attn_norm.weight`: number 1 is NaN"), "{error}");
    // A file that shrinks after it was opened is an error and nothing worse.
    OpenOptions::new().write(true).truncate(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert!(files.tensor(TensorName::Embedding).is_err());
}

#[test]
fn declared_lengths_are_held_against_the_file() {
    let head = |tensors: u64, metadata: u64, rest: &[u8]| {
        let counts = [tensors.to_le_bytes(), metadata.to_le_bytes()].concat();
        open(&[b"GGUF\x03\0\0\0", &counts[..], rest].concat()).unwrap_err()
    };
    assert_eq!(open(b"GGML").unwrap_err(), "m.gguf: not a GGUF file");
    assert_eq!(open(b"GG").unwrap_err(), "m.gguf: ends at byte 2 inside magic");
    assert_eq!(open(b"GGUF\x01\0\0\0").unwrap_err(), "m.gguf: GGUF version 1 is not supported");
    assert_eq!(head(u64::MAX, 0, b""), "m.gguf: tensor count 18446744073709551615 is more than 65536");
    assert_eq!(head(0, 9, b""), "m.gguf: ends at byte 24 inside metadata key");
    assert_eq!(
        head(0, 1, &u64::MAX.to_le_bytes()),
        "m.gguf: metadata key: a text of 18446744073709551615 bytes at byte 32 is longer than allowed or than the file"
    );
    let long = Gguf::default().list("k", 4, usize::MAX / 2, &[]);
    assert_eq!(
        refusal(&long),
        "m.gguf: key `k`: an array of 9223372036854775807 elements does not fit in what is left of the file"
    );
    let nested = Gguf::default().list("k", 9, 1, &[0; 16]);
    assert_eq!(refusal(&nested), "m.gguf: key `k`: arrays inside arrays are not supported");
    let bad = Gguf::default().entry("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF]);
    assert_eq!(refusal(&bad), "m.gguf: k: text is not UTF-8");
    let bad = Gguf::default().entry("k", 7, &[2]);
    assert_eq!(refusal(&bad), "m.gguf: key `k`: 2 is not a truth value");
    let bad = Gguf::default().entry("k", 77, &[2]);
    assert_eq!(refusal(&bad), "m.gguf: key `k`: value type 77 is unknown");
    assert!(ModelFiles::open(Path::new("/dev/null")).unwrap_err().to_string().ends_with("is not a regular file"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = small_model().bytes();
    for cut in (0..whole.len() - 32).step_by(7) {
        assert!(open(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let whole = [b"GGUF\x03\0\0\0", &bytes[..]].concat();
        prop_assert!(open(&bytes).is_err());
        let _ = open(&whole);
    }

    #[test]
    fn a_changed_file_is_refused_or_readable(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = small_model().bytes();
        // Two thirds of the file are plain numbers; the head is where it gets interesting.
        let head = bytes.len() / 3;
        for (at, byte) in changes {
            bytes[at % head] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(files) = ModelFiles::open(&path) {
            for name in files.config().tensor_names() {
                let _ = files.tensor(name);
            }
            let _ = files.tokenizer().map(|tokenizer| tokenizer.encode("abc <s> d", super::super::SpecialTokens::Plain));
        }
    }
}
