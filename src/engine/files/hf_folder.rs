//! The small files of a Hugging Face folder: configuration, tokenizer, template, and which shards hold the weights.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::config::ModelConfig;
use super::config_hf::HfConfig;
use super::error::{ModelFileError, quoted};

/// The largest tokenizer.json in use, of 260 000 tokens, has 33 MiB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
const MAX_JSON_BYTES: u64 = 16 << 20;

pub(crate) struct FolderParts {
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer_json: Option<Vec<u8>>,
    pub(crate) eos_ids: Vec<u32>,
    pub(crate) bos_token: Option<String>,
    pub(crate) eos_token: Option<String>,
    /// With the file it was found in.
    pub(crate) chat_template: Option<(PathBuf, String)>,
}

/// A config.json alone.
pub(crate) fn config(path: &Path) -> Result<ModelConfig, ModelFileError> {
    HfConfig::parse(path, &read_bounded(path, MAX_JSON_BYTES)?)?.model_config(path)
}

pub(crate) fn read(folder: &Path) -> Result<FolderParts, ModelFileError> {
    let config_path = folder.join("config.json");
    let parsed = HfConfig::parse(&config_path, &read_bounded(&config_path, MAX_JSON_BYTES)?)?;
    let config = parsed.model_config(&config_path)?;
    let tokenizer_path = folder.join("tokenizer.json");
    let tokenizer_json = match tokenizer_path.exists() {
        true => Some(read_bounded(&tokenizer_path, MAX_TOKENIZER_BYTES)?),
        false => None,
    };

    // generation_config.json wins: instruct models list there all the ids that end a turn.
    let generation_path = folder.join("generation_config.json");
    let generation = read_json(&generation_path)?.unwrap_or(Value::Null);
    let mut eos_ids = ids(&generation_path, &generation["eos_token_id"])?;
    if eos_ids.is_empty() {
        eos_ids = ids(&config_path, parsed.eos_token_id.as_ref().unwrap_or(&Value::Null))?;
    }

    let tokenizer_config_path = folder.join("tokenizer_config.json");
    let tokenizer_config = read_json(&tokenizer_config_path)?.unwrap_or(Value::Null);
    let template_path = folder.join("chat_template.jinja");
    let chat_template = if template_path.exists() {
        let bytes = read_bounded(&template_path, MAX_JSON_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| ModelFileError::malformed(&template_path, "is not UTF-8"))?;
        Some((template_path, text))
    } else {
        template(&tokenizer_config_path, &tokenizer_config["chat_template"])?.map(|text| (tokenizer_config_path, text))
    };
    Ok(FolderParts {
        config,
        tokenizer_json,
        eos_ids,
        bos_token: token_text(&tokenizer_config["bos_token"]),
        eos_token: token_text(&tokenizer_config["eos_token"]),
        chat_template,
    })
}

/// The weight files: one, or those that the index names.
pub(crate) fn shards(folder: &Path) -> Result<Vec<PathBuf>, ModelFileError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index_path = folder.join("model.safetensors.index.json");
    let Some(index) = read_json(&index_path)? else {
        return Err(ModelFileError::malformed(
            folder,
            "has neither model.safetensors nor model.safetensors.index.json",
        ));
    };
    let Some(map) = index["weight_map"].as_object() else {
        return Err(ModelFileError::key(&index_path, "weight_map", "is not an object"));
    };
    let mut names: Vec<&str> = Vec::new();
    for file in map.values() {
        let name = file.as_str().unwrap_or_default();
        // An index may not lead out of its folder.
        let mut components = Path::new(name).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            let reason = format!("`{}` is not a file name", quoted(&file.to_string()));
            return Err(ModelFileError::key(&index_path, "weight_map", reason));
        }
        names.push(name);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, ModelFileError> {
    let fail = |source| ModelFileError::read(path, source);
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(ModelFileError::malformed(path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(most + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > most {
        return Err(ModelFileError::malformed(path, format!("has more than {most} bytes")));
    }
    Ok(bytes)
}

/// `None` when there is no such file.
fn read_json(path: &Path) -> Result<Option<Value>, ModelFileError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_bounded(path, MAX_JSON_BYTES)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| ModelFileError::malformed(path, error.to_string()))
}

fn ids(path: &Path, value: &Value) -> Result<Vec<u32>, ModelFileError> {
    let listed = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    listed.iter().map(id).collect::<Option<_>>().ok_or_else(|| {
        ModelFileError::key(path, "eos_token_id", format!("{} is not a token id", quoted(&value.to_string())))
    })
}

/// A token is written as text or as an object with its `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// One template, or several by name, of which the one named `default` is the chat's.
fn template(path: &Path, value: &Value) -> Result<Option<String>, ModelFileError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(list) => {
            let default = list.iter().find(|entry| entry["name"] == "default");
            match default.and_then(|entry| entry["template"].as_str()) {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(ModelFileError::key(path, "chat_template", "has no template named `default`")),
            }
        }
        _ => Err(ModelFileError::key(path, "chat_template", "is neither a text nor a list")),
    }
}
