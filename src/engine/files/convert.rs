//! Writes a model as a Hugging Face folder, tensor by tensor, so that other tools can read what came as GGUF.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::config::{Architecture, ModelConfig, RopeScaling};
use super::error::ModelFileError;
use super::model::ModelFiles;
use super::numbers::SaveDtype;
use super::tokenizer::TokenizerError;

/// `out` must not exist; it appears complete or not at all.
pub fn write_hf_folder(files: &ModelFiles, out: &Path, dtype: SaveDtype) -> Result<(), ModelFileError> {
    if out.exists() {
        return Err(ModelFileError::malformed(out, "exists already"));
    }
    let config = config_json(files, out, dtype)?;
    let unfinished = Unfinished::create(out)?;
    let folder = &unfinished.path;
    write_json(&folder.join("config.json"), &config)?;
    if let Some(tokenizer) = files.tokenizer() {
        let tokenizer_path = folder.join("tokenizer.json");
        tokenizer.save(&tokenizer_path).map_err(|error| match error {
            TokenizerError::Write { file, source } => ModelFileError::Write { file, source },
            other => ModelFileError::malformed(&tokenizer_path, other.to_string()),
        })?;
        write_json(&folder.join("tokenizer_config.json"), &tokenizer_config(files))?;
        let generation = json!({"eos_token_id": tokenizer.eos_ids(), "do_sample": false});
        write_json(&folder.join("generation_config.json"), &generation)?;
    }
    write_weights(files, &folder.join("model.safetensors"), dtype)?;
    unfinished.finish(out)
}

/// A folder next to the target, removed again unless it was finished.
struct Unfinished {
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    fn create(out: &Path) -> Result<Self, ModelFileError> {
        let Some(name) = out.file_name() else {
            return Err(ModelFileError::malformed(out, "is not a folder name"));
        };
        let mut name = name.to_owned();
        name.push(format!(".unfinished-{}", std::process::id()));
        let path = out.with_file_name(name);
        fs::create_dir(&path).map_err(|source| ModelFileError::write(&path, source))?;
        Ok(Self { path, finished: false })
    }

    fn finish(mut self, out: &Path) -> Result<(), ModelFileError> {
        fs::rename(&self.path, out).map_err(|source| ModelFileError::write(out, source))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing better can be done with a failure here; the first error is the one that matters.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), ModelFileError> {
    let text = format!("{value:#}\n");
    fs::write(path, text).map_err(|source| ModelFileError::write(path, source))
}

fn config_json(files: &ModelFiles, out: &Path, dtype: SaveDtype) -> Result<Value, ModelFileError> {
    let config = files.config();
    let class = match config.architecture {
        Architecture::Llama => "LlamaForCausalLM",
        Architecture::Mistral => "MistralForCausalLM",
        Architecture::Qwen2 => "Qwen2ForCausalLM",
        Architecture::Qwen3 => "Qwen3ForCausalLM",
    };
    let mut rope = rope_json(config, out)?;
    let mut json = json!({
        "architectures": [class],
        "model_type": config.architecture.name(),
        "vocab_size": config.vocab,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "rms_norm_eps": shortest(config.rms_eps),
        // Both places: transformers 5 reads `rope_parameters`, everyone else the top level.
        "rope_theta": shortest(config.rope_theta),
        "rope_scaling": if rope["rope_type"] == "default" { Value::Null } else { rope.clone() },
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied_embeddings,
        // The same under the name before transformers 5 and since.
        "torch_dtype": dtype.torch(),
        "dtype": dtype.torch(),
        "use_cache": true,
    });
    rope["rope_theta"] = shortest(config.rope_theta);
    json["rope_parameters"] = rope;
    if let Some(tokenizer) = files.tokenizer() {
        json["eos_token_id"] = json!(tokenizer.eos_ids());
        json["bos_token_id"] = json!(files.chat_template().and_then(|template| tokenizer.id_of(template.bos_token())));
    }
    if config.architecture != Architecture::Qwen2 {
        json["attention_bias"] = json!(false);
    }
    // Llama has no such key; elsewhere an absent one would get a default.
    if config.architecture == Architecture::Mistral {
        json["sliding_window"] = json!(config.sliding_window);
    }
    Ok(json)
}

fn rope_json(config: &ModelConfig, out: &Path) -> Result<Value, ModelFileError> {
    Ok(match &config.rope_scaling {
        RopeScaling::None => json!({"rope_type": "default"}),
        RopeScaling::Linear(factor) => json!({"rope_type": "linear", "factor": shortest(*factor)}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3",
            "factor": shortest(*factor),
            "low_freq_factor": shortest(*low_freq_factor),
            "high_freq_factor": shortest(*high_freq_factor),
            "original_max_position_embeddings": original_context,
        }),
        RopeScaling::Factors(_) => {
            return Err(ModelFileError::unsupported(out, "writing explicit RoPE factors to config.json"));
        }
    })
}

/// 1e-5 as f32 is 9.999999747e-6 as f64; written the short way it reads back the same and looks right.
fn shortest(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

fn tokenizer_config(files: &ModelFiles) -> Value {
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": files.config().context,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(template) = files.chat_template() {
        json["chat_template"] = json!(template.source());
        for (key, token) in [("bos_token", template.bos_token()), ("eos_token", template.eos_token())] {
            if !token.is_empty() {
                json[key] = json!(token);
            }
        }
    }
    json
}

fn write_weights(files: &ModelFiles, path: &Path, dtype: SaveDtype) -> Result<(), ModelFileError> {
    let fail = |source| ModelFileError::write(path, source);
    let names = files.config().tensor_names();
    let mut head = Map::new();
    head.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut place: u64 = 0;
    for name in &names {
        let shape = name.shape(files.config());
        let end = place + shape.iter().product::<usize>() as u64 * dtype.bytes();
        let entry = json!({"dtype": dtype.safetensors(), "shape": shape, "data_offsets": [place, end]});
        head.insert(name.hugging_face(), entry);
        place = end;
    }
    let mut head = Value::Object(head).to_string().into_bytes();
    // The format wants the data aligned to eight bytes; spaces after the JSON are allowed.
    head.resize(head.len().next_multiple_of(8), b' ');

    let mut file = BufWriter::new(File::create(path).map_err(fail)?);
    file.write_all(&(head.len() as u64).to_le_bytes()).map_err(fail)?;
    file.write_all(&head).map_err(fail)?;
    for name in names {
        let values = files.tensor(name)?;
        // In pieces: the encoded copy of a large table is not needed as a whole.
        for piece in values.chunks(1 << 20) {
            file.write_all(&dtype.encode(piece)).map_err(fail)?;
        }
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error).map_err(fail)?;
    file.sync_all().map_err(fail)
}
