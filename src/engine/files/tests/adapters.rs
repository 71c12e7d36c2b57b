use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{AdapterError, AdapterFiles, AdapterLimits, LoraModule};
use super::{Planned, safetensors_bytes, small_config, with_head, write};

const LIMITS: AdapterLimits = AdapterLimits { max_rank: 16, max_bytes: 100_000 };
const NAMES: [&str; 2] = ["small-base", "Org/Small-Base"];

fn good_config() -> Value {
    json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "org/small-base",
        "rank_pattern": {}, "modules_to_save": null, "use_dora": false, "layers_to_transform": null,
    })
}

fn name(layer: usize, module: &str, half: &str) -> String {
    let block = if ["gate_proj", "up_proj", "down_proj"].contains(&module) { "mlp" } else { "self_attn" };
    format!("base_model.model.model.layers.{layer}.{block}.{module}.lora_{half}.weight")
}

fn good_tensors() -> Vec<Planned> {
    let mut tensors = Vec::new();
    for layer in 0..2 {
        for (module, out) in [("q_proj", 8), ("v_proj", 4)] {
            tensors.push(Planned::f32(name(layer, module, "A"), &[2, 8]));
            tensors.push(Planned::f32(name(layer, module, "B"), &[out, 2]));
        }
    }
    tensors
}

fn folder(config: &Value, tensors: &[Planned]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "adapter_config.json", config.to_string());
    write(folder.path(), "adapter_model.safetensors", safetensors_bytes(tensors));
    folder
}

fn open(path: &Path) -> Result<AdapterFiles, AdapterError> {
    AdapterFiles::open(path, &small_config(), &NAMES, LIMITS)
}

fn refusal(folder: &TempDir) -> String {
    open(folder.path()).unwrap_err().to_string()
}

fn refused_config(change: impl FnOnce(&mut Value)) -> String {
    let mut config = good_config();
    change(&mut config);
    let folder = folder(&config, &good_tensors());
    let text = refusal(&folder);
    let early = AdapterFiles::check_config(folder.path(), &NAMES, LIMITS).unwrap_err();
    assert_eq!(early.to_string(), text, "both stages say the same");
    text
}

fn refused_tensors(change: impl FnOnce(&mut Vec<Planned>)) -> String {
    let mut tensors = good_tensors();
    change(&mut tensors);
    refusal(&folder(&good_config(), &tensors))
}

#[test]
fn a_good_adapter_opens_with_its_numbers() {
    let folder = folder(&good_config(), &good_tensors());
    let adapter = open(folder.path()).unwrap();
    assert_eq!((adapter.rank(), adapter.scale(), adapter.module_count()), (2, 4.0, 4));
    assert_eq!(adapter.bytes(), std::fs::metadata(folder.path().join("adapter_model.safetensors")).unwrap().len());
    let modules: Vec<_> = adapter.modules().collect();
    let order: Vec<_> = modules.iter().map(|module| (module.layer, module.module)).collect();
    assert_eq!(order, [(0, LoraModule::Q), (0, LoraModule::V), (1, LoraModule::Q), (1, LoraModule::V)]);
    assert_eq!(modules[1].b, [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]);
    assert_eq!(adapter.digest(), open(folder.path()).unwrap().digest());

    let mut other = good_config();
    other["lora_alpha"] = json!(9);
    write(folder.path(), "adapter_config.json", other.to_string());
    assert_ne!(adapter.digest(), open(folder.path()).unwrap().digest(), "the configuration is part of the identity");
}

#[test]
fn names_with_the_adapters_name_and_half_precision_are_read_too() {
    let mut tensors = good_tensors();
    for tensor in &mut tensors {
        tensor.name = tensor.name.replace(".weight", ".default.weight");
        let values: Vec<f32> = (0..tensor.data.len() / 4).map(|at| at as f32).collect();
        if tensor.shape[0] == 2 {
            tensor.dtype = "F16";
            tensor.data = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
        } else {
            tensor.dtype = "BF16";
            tensor.data = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
        }
    }
    let mut config = good_config();
    config["use_rslora"] = json!(true);
    config["target_modules"] = json!("all-linear");
    let adapter = open(folder(&config, &tensors).path()).unwrap();
    assert_eq!(adapter.scale(), (8.0 / 2f64.sqrt()) as f32);
    let first = adapter.modules().next().unwrap();
    assert_eq!(first.a, (0..16).map(|at| at as f32).collect::<Vec<_>>());
    assert_eq!(first.b, (0..16).map(|at| at as f32).collect::<Vec<_>>());
}

#[test]
fn missing_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(refusal(&empty), "adapter_config.json is missing");
    assert_eq!(open(&empty.path().join("nowhere")).unwrap_err().to_string(), "adapter_config.json is missing");
    write(empty.path(), "adapter_config.json", good_config().to_string());
    assert_eq!(refusal(&empty), "adapter_model.safetensors is missing");
    write(empty.path(), "adapter_model.bin", "x");
    assert_eq!(
        refusal(&empty),
        "adapter_model.bin is a pickle, which can run code when it is read; save the adapter as adapter_model.safetensors"
    );
    std::fs::create_dir(empty.path().join("adapter_model.safetensors")).unwrap();
    assert!(!open(empty.path()).unwrap_err().is_temporary());
}

#[test]
fn sizes_are_bounded_before_reading() {
    let folder = folder(&good_config(), &good_tensors());
    let limits = AdapterLimits { max_bytes: 100, ..LIMITS };
    let error = AdapterFiles::open(folder.path(), &small_config(), &NAMES, limits).unwrap_err().to_string();
    let bytes = std::fs::metadata(folder.path().join("adapter_model.safetensors")).unwrap().len();
    assert_eq!(error, format!("adapter_model.safetensors has {bytes} bytes, at most 100 are allowed"));
    write(folder.path(), "adapter_config.json", vec![b' '; (1 << 20) + 1]);
    assert_eq!(refusal(&folder), "adapter_config.json has 1048577 bytes, at most 1048576 are allowed");
}

#[test]
fn a_configuration_that_is_not_json_is_refused() {
    let folder = folder(&good_config(), &good_tensors());
    write(folder.path(), "adapter_config.json", "{\"r\":");
    assert_eq!(
        refusal(&folder),
        "adapter_config.json: is not valid JSON: EOF while parsing a value at line 1 column 5"
    );
    write(folder.path(), "adapter_config.json", "[]");
    assert_eq!(refusal(&folder), "adapter_config.json: is not a JSON object");
    write(folder.path(), "adapter_config.json", "[".repeat(5000));
    assert!(refusal(&folder).starts_with("adapter_config.json: is not valid JSON: recursion limit exceeded"));
}

#[test]
fn what_is_not_plain_lora_is_refused_by_name() {
    let cases = [
        ("peft_type", json!("IA3"), "`peft_type` IA3"),
        ("task_type", json!("SEQ_CLS"), "`task_type` SEQ_CLS"),
        ("bias", json!("lora_only"), "`bias` lora_only"),
        ("use_dora", json!(true), "`use_dora`"),
        ("lora_bias", json!(true), "`lora_bias`"),
        ("fan_in_fan_out", json!(true), "`fan_in_fan_out`"),
        ("modules_to_save", json!(["lm_head"]), "`modules_to_save`"),
        ("rank_pattern", json!({"q_proj": 4}), "`rank_pattern`"),
        ("alpha_pattern", json!({"q_proj": 4}), "`alpha_pattern`"),
        ("layers_to_transform", json!([0]), "`layers_to_transform`"),
        ("layer_replication", json!([[0, 1]]), "`layer_replication`"),
        ("target_parameters", json!(["x"]), "`target_parameters`"),
        ("trainable_token_indices", json!([1]), "`trainable_token_indices`"),
        ("alora_invocation_tokens", json!([1]), "`alora_invocation_tokens`"),
        ("use_something_new", json!(true), "`use_something_new`"),
        ("init_lora_weights", json!("pissa_niter_4"), "`init_lora_weights` pissa_niter_4"),
        ("target_modules", json!(["q_proj", "embed_tokens"]), "target module \"embed_tokens\""),
    ];
    for (key, value, shown) in cases {
        let text = refused_config(|config| config[key] = value);
        assert_eq!(text, format!("adapter_config.json: {shown} is not supported"));
    }
    assert_eq!(
        refused_config(|config| config["peft_type"] = Value::Null),
        "adapter_config.json: `peft_type` is missing"
    );
}

#[test]
fn ranks_and_scales_that_make_no_sense_are_refused() {
    let refused = |key: &str, value: Value| refused_config(|config| config[key] = value);
    assert_eq!(refused("r", json!(0)), "adapter_config.json: `r` is 0");
    assert_eq!(refused("r", json!(64)), "adapter_config.json: `r` is 64, at most 16 is allowed");
    assert_eq!(refused("r", json!("8")), "adapter_config.json: `r` is \"8\", not a rank");
    let alpha = "not a number above 0 and up to 1000000";
    assert_eq!(refused("lora_alpha", json!(0)), format!("adapter_config.json: `lora_alpha` is 0, {alpha}"));
    assert_eq!(refused("lora_alpha", Value::Null), format!("adapter_config.json: `lora_alpha` is null, {alpha}"));
    assert_eq!(refused("use_rslora", json!(1)), "adapter_config.json: `use_rslora` is neither true nor false");
    assert_eq!(refused("target_modules", json!([])), "adapter_config.json: `target_modules` is empty");
    assert_eq!(
        refused("target_modules", Value::Null),
        "adapter_config.json: `target_modules` is neither a list nor a text"
    );
}

#[test]
fn another_base_is_refused_and_a_path_says_nothing() {
    let refused = refused_config(|config| config["base_model_name_or_path"] = json!("meta-llama/Llama-3.2-1B"));
    assert_eq!(refused, "the adapter was trained on `meta-llama/Llama-3.2-1B`, this base is `Org/Small-Base`");
    // A name without an organisation on our side is compared with the last part of theirs.
    let config = |base: Value| {
        let mut config = good_config();
        config["base_model_name_or_path"] = base;
        folder(&config, &good_tensors())
    };
    for accepted in ["elsewhere/SMALL-base", "/data/a/b", "./out/model", "~/model", "../x", "small", "a/b/c", ""] {
        open(config(json!(accepted)).path()).unwrap_or_else(|error| panic!("{accepted}: {error}"));
    }
    open(config(Value::Null).path()).unwrap();
}

#[test]
fn wrong_shapes_name_what_was_found_and_expected() {
    let prefix = "adapter_model.safetensors: tensor `base_model.model.model.layers.0.self_attn.q_proj.lora_";
    assert_eq!(
        refused_tensors(|tensors| tensors[0] = Planned::f32(name(0, "q_proj", "A"), &[2, 100])),
        format!("{prefix}A.weight`: has shape [2, 100], the base needs [2, 8]")
    );
    assert_eq!(
        refused_tensors(|tensors| tensors[1] = Planned::f32(name(0, "q_proj", "B"), &[9, 2])),
        format!("{prefix}B.weight`: has shape [9, 2], the base needs [8, 2]")
    );
    assert_eq!(
        refused_tensors(|tensors| tensors[0] = Planned::f32(name(0, "q_proj", "A"), &[4, 8])),
        format!("{prefix}A.weight`: has rank 4, adapter_config.json says r = 2")
    );
    assert_eq!(
        refused_tensors(|tensors| tensors[0] = Planned::f32(name(0, "q_proj", "A"), &[16])),
        format!("{prefix}A.weight`: has shape [16], the base needs [2, 8]")
    );
}

#[test]
fn tensors_that_do_not_belong_are_refused() {
    let tensor = |name: &str, reason: &str| format!("adapter_model.safetensors: tensor `{name}`: {reason}");
    let not_lora = "is not a LoRA tensor of a projection that can be adapted";
    for wrong in [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.rotary.lora_A.weight",
        "base_model.model.model.layers.0.mlp.q_proj.lora_A.weight",
        "base_model.model.model.layers.+1.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.01.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
        "x",
    ] {
        let text = refused_tensors(|tensors| tensors.push(Planned::f32(wrong, &[2, 8])));
        assert_eq!(text, tensor(wrong, not_lora));
    }
    let beyond = name(2, "q_proj", "A");
    assert_eq!(
        refused_tensors(|tensors| tensors.push(Planned::f32(beyond.clone(), &[2, 8]))),
        tensor(&beyond, "layer 2 does not exist, the base has 2")
    );
    let lonely = name(1, "v_proj", "A");
    assert_eq!(refused_tensors(|tensors| drop(tensors.pop())), tensor(&lonely, "has no lora_B beside it"));
    let unlisted = name(0, "k_proj", "A");
    assert_eq!(
        refused_tensors(|tensors| tensors.push(Planned::f32(unlisted.clone(), &[2, 8]))),
        tensor(&unlisted, "is not among the `target_modules` of adapter_config.json")
    );
    assert_eq!(
        refused_tensors(|tensors| tensors.retain(|tensor| tensor.name.contains("q_proj"))),
        "adapter_model.safetensors: has no tensor for target module `v_proj`"
    );
    let doubled = name(0, "q_proj", "A");
    let again = doubled.replace(".weight", ".default.weight");
    assert_eq!(
        refused_tensors(|tensors| tensors.push(Planned::f32(again.clone(), &[2, 8]))),
        tensor(&again, &format!("says the same as `{doubled}`"))
    );
    assert_eq!(refused_tensors(Vec::clear), "adapter_model.safetensors: holds no tensors");
}

#[test]
fn numbers_that_are_not_finite_and_other_types_are_refused() {
    let first = name(0, "q_proj", "A");
    let nan = refused_tensors(|tensors| tensors[0].data[4..8].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert_eq!(nan, format!("adapter_model.safetensors: tensor `{first}`: number 1 is NaN"));
    let infinite = refused_tensors(|tensors| tensors[0].data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes()));
    assert_eq!(infinite, format!("adapter_model.safetensors: tensor `{first}`: number 0 is inf"));
    let integers = refused_tensors(|tensors| tensors[0].dtype = "I32");
    let reason = "is stored as I32; F32, F16 and BF16 are supported";
    assert_eq!(integers, format!("adapter_model.safetensors: tensor `{first}`: {reason}"));
}

#[test]
fn cut_off_files_and_lying_headers_are_refused() {
    let folder = folder(&good_config(), &good_tensors());
    let whole = safetensors_bytes(&good_tensors());
    let head = u64::from_le_bytes(whole[..8].try_into().unwrap());
    let with = |bytes: &[u8]| {
        write(folder.path(), "adapter_model.safetensors", bytes);
        refusal(&folder)
    };
    assert_eq!(with(b"abc"), "adapter_model.safetensors: 3 bytes are too few for a safetensors file");
    assert_eq!(
        with(&whole[..20]),
        format!("adapter_model.safetensors: the header claims {head} bytes, the file has 12 after its length")
    );
    let data = whole.len() as u64 - 8 - head;
    assert_eq!(
        with(&whole[..whole.len() - 1]),
        format!(
            "adapter_model.safetensors: its tensors take {data} bytes, but {} follow the header: cut off or padded",
            data - 1
        )
    );
    assert_eq!(
        with(&u64::MAX.to_le_bytes()),
        "adapter_model.safetensors: the header claims 18446744073709551615 bytes, the file has 0 after its length"
    );
    let first = name(0, "q_proj", "A");
    let lie = format!(r#"{{"{first}":{{"dtype":"F32","shape":[2,8],"data_offsets":[0,8]}}}}"#);
    assert_eq!(
        with(&with_head(&lie, &[0; 8])),
        format!("adapter_model.safetensors: tensor `{first}`: bytes 0 to 8 do not hold F32 numbers of shape [2, 8]")
    );
    for cut in 0..whole.len() {
        write(folder.path(), "adapter_model.safetensors", &whole[..cut]);
        assert!(open(folder.path()).is_err(), "cut at {cut}");
    }
}
