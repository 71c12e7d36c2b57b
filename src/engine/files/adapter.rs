//! A LoRA adapter in PEFT's format, validated as a whole before any of it is used.
//!
//! Both files are read once into bounded memory; what is checked, hashed and served are the same bytes, so swapping a
//! file in between changes nothing. Numbers stay as stored and are widened when a module is asked for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::adapter_config::{AdapterConfig, AdapterLimits, MAX_CONFIG_BYTES, Targets};
use super::adapter_error::{AdapterError, CONFIG_FILE, WEIGHTS_FILE};
use super::config::ModelConfig;
use super::numbers::StoredAs;
use super::safetensors::{HeadFault, LENGTH_BYTES, SafeTensor, head_length, parse_head};

/// The projections an adapter may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoraModule {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

/// One adapted projection: `A` narrows to the rank, `B` widens again; both row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterModule {
    pub layer: usize,
    pub module: LoraModule,
    /// `[rank, in]`
    pub a: Vec<f32>,
    /// `[out, rank]`
    pub b: Vec<f32>,
}

#[derive(Debug)]
pub struct AdapterFiles {
    config: AdapterConfig,
    digest: String,
    weights: Vec<u8>,
    modules: BTreeMap<(usize, LoraModule), Pair>,
}

#[derive(Debug)]
struct Pair {
    a: Stored,
    b: Stored,
}

#[derive(Debug, Clone)]
struct Stored {
    stored_as: StoredAs,
    /// In the weights file.
    place: Range<usize>,
}

impl LoraModule {
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// As Llama-family models call it, and PEFT's `target_modules`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|module| module.name() == name)
    }

    /// The block it sits in, which is part of the tensor's name.
    fn block(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }

    /// Input and output width of the projection.
    pub fn widths(self, base: &ModelConfig) -> (usize, usize) {
        let queries = base.heads * base.head_dim;
        let keys = base.kv_heads * base.head_dim;
        match self {
            Self::Q => (base.hidden, queries),
            Self::K | Self::V => (base.hidden, keys),
            Self::O => (queries, base.hidden),
            Self::Gate | Self::Up => (base.hidden, base.intermediate),
            Self::Down => (base.intermediate, base.hidden),
        }
    }
}

impl AdapterFiles {
    /// The cheap half: reads adapter_config.json alone, and sees that weights are there in an acceptable size.
    pub fn check_config(dir: &Path, base_names: &[&str], limits: AdapterLimits) -> Result<AdapterConfig, AdapterError> {
        let json = read(dir, CONFIG_FILE, MAX_CONFIG_BYTES)?;
        let config = AdapterConfig::parse(&json, base_names, limits)?;
        size_of_weights(dir, limits)?;
        Ok(config)
    }

    /// `base_names` are all the names this base goes by.
    pub fn open(
        dir: &Path,
        base: &ModelConfig,
        base_names: &[&str],
        limits: AdapterLimits,
    ) -> Result<Self, AdapterError> {
        let json = read(dir, CONFIG_FILE, MAX_CONFIG_BYTES)?;
        // What this finds wrong costs no reading of the weights.
        AdapterConfig::parse(&json, base_names, limits)?;
        size_of_weights(dir, limits)?;
        let weights = read(dir, WEIGHTS_FILE, limits.max_bytes)?;
        Self::from_parts(&json, weights, base, base_names, limits)
    }

    /// As [`open`](Self::open), of files that are in memory already.
    pub fn from_parts(
        json: &[u8],
        weights: Vec<u8>,
        base: &ModelConfig,
        base_names: &[&str],
        limits: AdapterLimits,
    ) -> Result<Self, AdapterError> {
        let config = AdapterConfig::parse(json, base_names, limits)?;
        let modules = checked_modules(&weights, &config, base)?;
        Ok(Self { digest: digest(json, &weights), config, weights, modules })
    }

    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    pub fn rank(&self) -> usize {
        self.config.rank
    }

    pub fn scale(&self) -> f32 {
        self.config.scale
    }

    /// Size of the weights file.
    pub fn bytes(&self) -> u64 {
        self.weights.len() as u64
    }

    /// SHA-256 over both files in hex: equal digests are equal adapters.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn module_count(&self) -> usize {
        self.modules.len()
    }

    /// By layer, then in the order of [`LoraModule`].
    pub fn modules(&self) -> impl Iterator<Item = AdapterModule> + '_ {
        self.modules.iter().map(|((layer, module), pair)| AdapterModule {
            layer: *layer,
            module: *module,
            a: numbers(&self.weights, &pair.a),
            b: numbers(&self.weights, &pair.b),
        })
    }
}

/// The length goes in first: without it the same bytes cut differently would give the same digest.
fn digest(config: &[u8], weights: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update((config.len() as u64).to_le_bytes());
    hasher.update(config);
    hasher.update(weights);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn numbers(weights: &[u8], stored: &Stored) -> Vec<f32> {
    let bytes = &weights[stored.place.clone()];
    let mut values = Vec::with_capacity(bytes.len() / stored.stored_as.block_bytes());
    stored.stored_as.decode_into(bytes, &mut values).expect("plain numbers have no way to fail");
    values
}

fn size_of_weights(dir: &Path, limits: AdapterLimits) -> Result<(), AdapterError> {
    let bytes = match file_size(dir, WEIGHTS_FILE) {
        Err(AdapterError::Missing { .. }) if dir.join("adapter_model.bin").exists() => {
            return Err(AdapterError::Pickle);
        }
        other => other?,
    };
    if bytes > limits.max_bytes {
        return Err(AdapterError::TooLarge { file: WEIGHTS_FILE, bytes, most: limits.max_bytes });
    }
    Ok(())
}

fn file_size(dir: &Path, file: &'static str) -> Result<u64, AdapterError> {
    match fs::metadata(dir.join(file)) {
        Ok(found) if found.is_file() => Ok(found.len()),
        // A folder or a FIFO of that name is no file of that name.
        Ok(_) => Err(AdapterError::Missing { file }),
        Err(source) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(AdapterError::Missing { file })
        }
        Err(source) => Err(AdapterError::Read { file, source }),
    }
}

fn read(dir: &Path, file: &'static str, most: u64) -> Result<Vec<u8>, AdapterError> {
    let fail = |source| AdapterError::Read { file, source };
    let bytes = file_size(dir, file)?;
    if bytes > most {
        return Err(AdapterError::TooLarge { file, bytes, most });
    }
    let mut content = Vec::with_capacity(bytes as usize);
    // The file may grow while it is read.
    File::open(dir.join(file)).map_err(fail)?.take(most + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() as u64 > most {
        return Err(AdapterError::TooLarge { file, bytes: content.len() as u64, most });
    }
    Ok(content)
}

// === the weights ===

type Place = (usize, LoraModule, Half);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    A,
    B,
}

fn checked_modules(
    weights: &[u8],
    config: &AdapterConfig,
    base: &ModelConfig,
) -> Result<BTreeMap<(usize, LoraModule), Pair>, AdapterError> {
    let (tensors, data_begin) = tensors(weights)?;
    if tensors.is_empty() {
        return Err(AdapterError::Weights("holds no tensors".to_owned()));
    }
    let mut found: BTreeMap<Place, (String, Stored)> = BTreeMap::new();
    for tensor in tensors {
        let place = place_of(&tensor.name, base)?;
        let stored = checked_tensor(&tensor, place, config, base, weights, data_begin)?;
        if let Some((other, _)) = found.insert(place, (tensor.name.clone(), stored)) {
            return Err(AdapterError::tensor(&tensor.name, format!("says the same as `{other}`")));
        }
    }
    check_targets(&found, &config.targets)?;
    let mut modules = BTreeMap::new();
    for ((layer, module, half), (name, stored)) in &found {
        let other = if *half == Half::A { Half::B } else { Half::A };
        let Some((_, partner)) = found.get(&(*layer, *module, other)) else {
            return Err(AdapterError::tensor(name, format!("has no lora_{other:?} beside it")));
        };
        if *half == Half::A {
            modules.insert((*layer, *module), Pair { a: stored.clone(), b: partner.clone() });
        }
    }
    Ok(modules)
}

fn tensors(weights: &[u8]) -> Result<(Vec<SafeTensor>, usize), AdapterError> {
    let fault = |fault: HeadFault| match fault.tensor {
        Some(tensor) => AdapterError::Tensor { tensor, reason: fault.reason },
        None => AdapterError::Weights(fault.reason),
    };
    let Some((first, rest)) = weights.split_first_chunk::<{ LENGTH_BYTES as usize }>() else {
        return Err(AdapterError::Weights(format!("{} bytes are too few for a safetensors file", weights.len())));
    };
    let head = head_length(*first, weights.len() as u64).map_err(fault)? as usize;
    let (json, data) = rest.split_at(head);
    Ok((parse_head(json, data.len() as u64).map_err(fault)?, first.len() + head))
}

/// `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`, with or without the adapter's name in it.
fn place_of(name: &str, base: &ModelConfig) -> Result<Place, AdapterError> {
    let unknown = || AdapterError::tensor(name, "is not a LoRA tensor of a projection that can be adapted");
    let rest = name.strip_prefix("base_model.model.model.layers.").ok_or_else(unknown)?;
    let parts: Vec<&str> = rest.split('.').collect();
    let (layer, block, module, half) = match parts[..] {
        [layer, block, module, half, "weight"] | [layer, block, module, half, "default", "weight"] => {
            (layer, block, module, half)
        }
        _ => return Err(unknown()),
    };
    let half = match half {
        "lora_A" => Half::A,
        "lora_B" => Half::B,
        _ => return Err(unknown()),
    };
    let module = LoraModule::named(module).filter(|module| module.block() == block).ok_or_else(unknown)?;
    // Digits only: `parse` would take "+3" too, and two names would mean one layer.
    let digits = layer.bytes().all(|byte| byte.is_ascii_digit()) && (layer == "0" || !layer.starts_with('0'));
    let number: usize = layer.parse().ok().filter(|_| digits).ok_or_else(unknown)?;
    if number >= base.layers {
        return Err(AdapterError::tensor(name, format!("layer {number} does not exist, the base has {}", base.layers)));
    }
    Ok((number, module, half))
}

fn checked_tensor(
    tensor: &SafeTensor,
    (_, module, half): Place,
    config: &AdapterConfig,
    base: &ModelConfig,
    weights: &[u8],
    data_begin: usize,
) -> Result<Stored, AdapterError> {
    let refuse = |reason: String| Err(AdapterError::tensor(&tensor.name, reason));
    let Some(stored_as) = StoredAs::from_safetensors(&tensor.dtype) else {
        return refuse(format!("is stored as {}; F32, F16 and BF16 are supported", tensor.dtype));
    };
    let (input, output) = module.widths(base);
    let (expected, rank_at) = match half {
        Half::A => ([config.rank, input], 0),
        Half::B => ([output, config.rank], 1),
    };
    if tensor.shape.len() == 2
        && tensor.shape[rank_at] != config.rank
        && tensor.shape[1 - rank_at] == expected[1 - rank_at]
    {
        return refuse(format!("has rank {}, adapter_config.json says r = {}", tensor.shape[rank_at], config.rank));
    }
    if tensor.shape != expected {
        return refuse(format!("has shape {:?}, the base needs {expected:?}", tensor.shape));
    }
    // Within the file: the head was held against its length.
    let place = data_begin + tensor.begin as usize..data_begin + tensor.end as usize;
    let stored = Stored { stored_as, place };
    if let Some((index, value)) = numbers(weights, &stored).iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return refuse(format!("number {index} is {value}"));
    }
    Ok(stored)
}

/// A list names exactly the modules that were trained: tensors it does not name would have been added afterwards, and
/// a name without tensors means that some were lost.
fn check_targets(found: &BTreeMap<Place, (String, Stored)>, targets: &Targets) -> Result<(), AdapterError> {
    let Targets::Listed(names) = targets else {
        return Ok(());
    };
    let matches = |layer: usize, module: LoraModule, name: &str| {
        let path = format!("model.layers.{layer}.{}.{}", module.block(), module.name());
        path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    for ((layer, module, _), (tensor, _)) in found {
        if !names.iter().any(|name| matches(*layer, *module, name)) {
            return Err(AdapterError::tensor(tensor, "is not among the `target_modules` of adapter_config.json"));
        }
    }
    for name in names {
        if !found.keys().any(|(layer, module, _)| matches(*layer, *module, name)) {
            let name = super::error::quoted(name);
            return Err(AdapterError::Weights(format!("has no tensor for target module `{name}`")));
        }
    }
    Ok(())
}
