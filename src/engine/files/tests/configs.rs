use std::path::Path;

use serde_json::{Value, json};

use super::super::config::{Architecture, ModelConfig, RopeScaling};
use super::super::config_hf::HfConfig;
use super::small_config;

fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 12, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
    })
}

fn read(config: &Value) -> Result<ModelConfig, String> {
    let path = Path::new("config.json");
    let parsed = HfConfig::parse(path, config.to_string().as_bytes()).map_err(|error| error.to_string())?;
    parsed.model_config(path).map_err(|error| error.to_string())
}

fn with(changes: Value) -> Result<ModelConfig, String> {
    let mut config = llama();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    read(&config)
}

#[test]
fn a_plain_configuration_is_read() {
    assert_eq!(read(&llama()), Ok(small_config()));
}

#[test]
fn each_architecture_brings_its_own_parts() {
    let qwen2 = with(json!({"model_type": "qwen2"})).unwrap();
    assert!(qwen2.qkv_bias && !qwen2.qk_norm);
    let qwen3 = with(json!({"model_type": "qwen3", "head_dim": 32})).unwrap();
    assert!(qwen3.qk_norm && !qwen3.qkv_bias);
    assert_eq!(qwen3.head_dim, 32);
    assert_eq!(with(json!({"model_type": "mistral"})).unwrap().architecture, Architecture::Mistral);
}

#[test]
fn a_sliding_window_caps_the_context_where_it_is_on() {
    let mistral = with(json!({"model_type": "mistral", "sliding_window": 16})).unwrap();
    assert_eq!((mistral.context, mistral.sliding_window), (16, Some(16)));
    let off = with(json!({"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": false})).unwrap();
    assert_eq!((off.context, off.sliding_window), (64, None));
    let some_layers = with(json!({"model_type": "qwen3", "sliding_window": 16, "use_sliding_window": true,
        "layer_types": ["full_attention", "sliding_attention"]}));
    assert_eq!(some_layers.unwrap().context, 16);
}

#[test]
fn rope_scaling_is_read_from_the_old_and_the_new_place() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32});
    let expected =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 32 };
    assert_eq!(with(json!({"rope_scaling": scaling})).unwrap().rope_scaling, expected);
    let mut new = scaling.clone();
    new["rope_theta"] = json!(500_000.0);
    let config = with(json!({"rope_parameters": new, "rope_theta": 1.0})).unwrap();
    assert_eq!((config.rope_theta, config.rope_scaling), (500_000.0, expected));
    let old = with(json!({"rope_scaling": {"type": "linear", "factor": 2.0}})).unwrap();
    assert_eq!(old.rope_scaling, RopeScaling::Linear(2.0));
    assert_eq!(
        with(json!({"rope_scaling": {"type": "linear"}})).unwrap_err(),
        "config.json: key `factor`: is missing for RoPE scaling `linear`"
    );
}

#[test]
fn what_the_engine_cannot_compute_is_refused_by_name() {
    let cases = [
        (json!({"model_type": "gpt2"}), "model type `gpt2`"),
        (json!({"hidden_act": "gelu"}), "activation `gelu`"),
        (json!({"num_local_experts": 8}), "a mixture of experts"),
        (json!({"quantization_config": {"bits": 4}}), "`quantization_config`: a quantised Hugging Face folder"),
        (json!({"attention_bias": true}), "`attention_bias`"),
        (json!({"mlp_bias": true}), "`mlp_bias`"),
        (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` other than 1"),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "RoPE scaling `yarn`"),
        (json!({"layer_types": ["linear_attention"]}), "layer type `linear_attention`"),
    ];
    for (change, what) in cases {
        assert_eq!(with(change).unwrap_err(), format!("config.json: {what} is not supported"));
    }
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let cases = [
        (json!({"vocab_size": 0}), "vocabulary is zero"),
        (json!({"num_hidden_layers": 100_000}), "number of layers 100000 is more than 512"),
        (json!({"hidden_size": 1 << 20}), "hidden size 1048576 is more than 65536"),
        (json!({"num_key_value_heads": 0}), "number of key-value heads is zero"),
        (
            json!({"num_attention_heads": 4, "num_key_value_heads": 3}),
            "4 attention heads cannot share 3 key-value heads evenly",
        ),
        (json!({"head_dim": 7}), "head size 7 is odd, so it cannot be rotated in pairs"),
        (json!({"rms_norm_eps": 0.0}), "RMS epsilon 0 is not within 0 and 0.1"),
        (json!({"rope_theta": -1.0}), "RoPE base -1 is not within 1 and 1e12"),
        (json!({"model_type": "mistral", "sliding_window": 0}), "context length is zero"),
        (json!({"rope_scaling": {"type": "linear", "factor": -2.0}}), "RoPE scaling factor -2 makes no sense"),
    ];
    for (change, what) in cases {
        assert_eq!(with(change).unwrap_err(), format!("config.json: {what}"));
    }
    assert_eq!(
        with(json!({"num_attention_heads": 0})).unwrap_err(),
        "config.json: key `num_attention_heads`: hidden size 8 does not divide by 0 heads"
    );
    assert!(with(json!({"vocab_size": -1})).unwrap_err().contains("invalid value"));
}

#[test]
fn rope_factors_divide_and_llama3_blends() {
    let mut config = small_config();
    assert_eq!(config.rope_inverse_frequencies(), [1.0, 0.01]);
    config.rope_scaling = RopeScaling::Factors(vec![2.0, 4.0]);
    assert_eq!(config.rope_inverse_frequencies(), [0.5, 0.0025]);
    config.rope_scaling = RopeScaling::Factors(vec![2.0]);
    assert_eq!(config.check().unwrap_err(), "1 RoPE factors where 2 are needed");
    config.rope_scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 32 };
    // Wavelength 6.3 is short and kept, 628 is long and divided.
    assert_eq!(config.rope_inverse_frequencies(), [1.0, 0.00125]);
}
