//! Configurations of the shared models, and everything that must be refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::shared_models;
use qft_llama::{Error, LlamaConfig, PRESETS, Rope, RopeScaling, TensorKind};
use serde_json::{Value, json};

/// A configuration in the classic style, with some keys set anew; `null` removes one.
fn with(changes: Value) -> String {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 100, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": null, "torch_dtype": "float32",
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

fn parsed(changes: Value) -> LlamaConfig {
    LlamaConfig::from_json(&with(changes)).unwrap()
}

fn plain_rope(theta: f64) -> Rope {
    Rope { theta, rotated: None, scaling: RopeScaling::Default }
}

#[test]
fn reads_the_shared_models() {
    for dir in shared_models() {
        let config = LlamaConfig::from_dir(&dir).unwrap();
        let stories = dir.ends_with("stories260k");
        assert_eq!(config.parameters(), if stories { 260_032 } else { 656_000 });
        assert_eq!(config.head_dim, if stories { 8 } else { 16 });
        assert_eq!(config.rms_norm_eps, if stories { 1e-5 } else { 1e-6 });
        assert_eq!(config.rope, plain_rope(10_000.0));
        assert_eq!((config.num_attention_heads, config.num_key_value_heads), (8, 4));
        assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(1), &[2][..]));
        assert!(config.tie_word_embeddings);
    }
}

#[test]
fn fills_in_what_is_absent() {
    let config = parsed(json!({"num_key_value_heads": null, "bos_token_id": null,
                               "eos_token_id": [3, 4], "rope_theta": null}));
    assert_eq!((config.num_key_value_heads, config.head_dim), (8, 8));
    assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (None, &[3, 4][..]));
    assert_eq!(config.rope.theta, 10_000.0);
    assert_eq!(parsed(json!({"head_dim": 32})).query_size(), 256);
    assert_eq!(parsed(json!({"head_dim": 32})).key_value_size(), 128);
}

#[test]
fn reads_both_styles_of_rope() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let mut new_style = llama3.clone();
    new_style["rope_theta"] = json!(500_000);
    let classic = parsed(json!({"rope_theta": 500_000.0, "rope_scaling": llama3}));
    let new = parsed(json!({"rope_theta": null, "rope_parameters": new_style}));
    assert_eq!(classic.rope, Rope { scaling, ..plain_rope(500_000.0) });
    assert_eq!(new.rope, classic.rope);

    let linear = json!({"rope_scaling": {"type": "linear", "factor": 2}});
    assert_eq!(parsed(linear).rope.scaling, RopeScaling::Linear { factor: 2.0 });
    let plain = json!({"rope_parameters": {"rope_theta": 5000.0}, "rope_theta": null});
    assert_eq!(parsed(plain).rope, plain_rope(5000.0));
}

/// Rotary frequencies, against the definition in f64. One f32 rounding of the exponent moves the power by
/// `ln(theta) * 2^-24` relative, the other steps by `2^-24` each: 1e-6 covers `ln(theta) <= 13.2`.
#[test]
fn rotary_frequencies() {
    const TOLERANCE: f64 = 1e-6;
    let close = |got: f32, want: f64| assert!((f64::from(got) / want - 1.0).abs() < TOLERANCE);
    let config = LlamaConfig::preset("llama-3-8b").unwrap();
    let plain = |i: usize| 500_000f64.powf(-((2 * i) as f64) / 128.0);
    for (i, &f) in config.inv_freq().iter().enumerate() {
        close(f, plain(i));
    }
    let linear = Rope { scaling: RopeScaling::Linear { factor: 4.0 }, ..plain_rope(500_000.0) };
    for (i, &f) in linear.inv_freq(128, 1).iter().enumerate() {
        close(f, plain(i) / 4.0);
    }
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let scaled = Rope { scaling, ..plain_rope(500_000.0) }.inv_freq(128, 1);
    let mut kinds = [0; 3];
    for (i, &f) in scaled.iter().enumerate() {
        let (frequency, wavelength) = (plain(i), std::f64::consts::TAU / plain(i));
        let (kind, want) = if wavelength < 2048.0 {
            (0, frequency)
        } else if wavelength > 8192.0 {
            (1, frequency / 8.0)
        } else {
            let smooth = (8192.0 / wavelength - 1.0) / 3.0;
            (2, (1.0 - smooth) * frequency / 8.0 + smooth * frequency)
        };
        kinds[kind] += 1;
        // The interpolation subtracts nearly equal numbers, which costs up to three bits.
        assert!((f64::from(f) / want - 1.0).abs() < 8.0 * TOLERANCE, "{i}: {f} {want}");
    }
    assert!(kinds.iter().all(|&n| n > 0), "{kinds:?}");
}

#[test]
fn refuses_by_name() {
    let cases = [
        (json!({"architectures": ["Qwen2ForCausalLM"]}), "architectures", "Qwen2ForCausalLM"),
        (json!({"model_type": "gemma"}), "model_type", "gemma"),
        (json!({"model_type": null, "architectures": null}), "model_type", "nothing"),
        (json!({"hidden_act": "gelu"}), "hidden_act", "gelu"),
        (json!({"mlp_bias": "no"}), "mlp_bias", "no"),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config", "quantized"),
        (
            json!({"rope_scaling": {"type": "proportional", "factor": 4.0}}),
            "rope_scaling.type",
            "proportional",
        ),
        (
            json!({"rope_parameters": {"rope_type": "longrope"}}),
            "rope_parameters.short_factor",
            "nothing",
        ),
        (
            json!({"rope_parameters": {"full_attention": {}}}),
            "rope_parameters.rope_type",
            "nothing",
        ),
        (json!({"rope_scaling": {"rope_type": "linear"}}), "rope_scaling.factor", "nothing"),
        (json!({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}), "factor", "0.5"),
        (json!({"rope_scaling": "linear"}), "rope_scaling", "linear"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor", "0.5"),
        (json!({"rope_theta": 0.0}), "rope_theta", "0"),
        (json!({"vocab_size": 0}), "vocab_size", "0"),
        (json!({"vocab_size": -5}), "vocab_size", "-5"),
        (json!({"vocab_size": "many"}), "vocab_size", "many"),
        (json!({"vocab_size": null}), "vocab_size", "nothing"),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers", "0"),
        (json!({"num_hidden_layers": 1u64 << 60}), "num_hidden_layers", "1152921504606846976"),
        (json!({"num_attention_heads": 0}), "hidden_size", "64"),
        (json!({"num_attention_heads": 7}), "hidden_size", "64"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads", "3"),
        (json!({"num_key_value_heads": 16}), "num_key_value_heads", "16"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads", "0"),
        (json!({"head_dim": 7}), "head_dim", "7"),
        (json!({"head_dim": 0}), "head_dim", "0"),
        (json!({"rms_norm_eps": 0.0}), "rms_norm_eps", "0"),
        (json!({"rms_norm_eps": 1e-60}), "rms_norm_eps", "0"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings", "0"),
        (json!({"bos_token_id": 100}), "bos_token_id", "100"),
        (json!({"eos_token_id": [1, -2]}), "eos_token_id", "-2"),
        (
            json!({"hidden_size": 1 << 20, "intermediate_size": 1 << 22, "num_hidden_layers": 1 << 14,
                   "head_dim": 8}),
            "hidden_size",
            "16384 layers",
        ),
    ];
    let mut wrong = Vec::new();
    for (changes, key, got) in cases {
        let text = match LlamaConfig::from_json(&with(changes.clone())) {
            Err(error @ Error::Config { .. }) => error.to_string(),
            other => format!("{other:?}"),
        };
        let parts = ["config: config.json: ", key, got, "expected", "; "];
        if !parts.iter().all(|part| text.contains(part)) {
            wrong.push(format!("{changes}: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Keys that look like another model but change nothing.
#[test]
fn accepts_what_has_no_effect() {
    for changes in [
        json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": null}),
        json!({"sliding_window": 128}),
        json!({"model_type": "mistral", "sliding_window": 128}),
        json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}}),
        json!({"layer_types": ["full_attention", "full_attention"]}),
        json!({"architectures": null}),
        json!({"quantization_config": null, "pretraining_tp": 1, "attention_dropout": 0.0}),
        json!({"rope_scaling": {"rope_type": "default"}}),
    ] {
        parsed(changes);
    }
}

#[test]
fn names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let error = || LlamaConfig::from_dir(dir.path()).unwrap_err().to_string();
    // An empty folder is named for itself.
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let named = |text: String| assert!(text.contains(file.to_str().unwrap()), "{text}");
    named(error());
    for text in ["", "{", "[]", "{\"vocab_size\": NaN}", &with(json!({"vocab_size": 0}))] {
        std::fs::write(&file, text).unwrap();
        named(error());
    }
}

#[test]
fn survives_writing_and_names_the_presets() {
    let error = LlamaConfig::preset("llama-9").unwrap_err().to_string();
    assert!(
        error.contains("llama-9") && PRESETS.iter().all(|name| error.contains(name)),
        "{error}"
    );

    let odd = LlamaConfig {
        head_dim: 24,
        bos_token_id: None,
        eos_token_ids: vec![5, 6],
        rms_norm_eps: 1e-6,
        rope: Rope { scaling: RopeScaling::Linear { factor: 2.5 }, ..plain_rope(2e6) },
        ..LlamaConfig::preset("llama-15m").unwrap()
    };
    assert_eq!(LlamaConfig::from_json(&odd.to_json("bfloat16")).unwrap(), odd);
    assert!(
        odd.to_json("bfloat16").contains("\"rms_norm_eps\": 1e-6"),
        "{}",
        odd.to_json("bfloat16")
    );
}

#[test]
fn lists_every_tensor_once() {
    let config = parsed(json!({"head_dim": 16}));
    let tensors: Vec<_> = config.tensors().collect();
    assert_eq!(tensors.len(), 2 + 2 * 9 + 1);
    let shape = |name: &str| {
        let found: Vec<_> = tensors.iter().filter(|t| t.name == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        (found[0].rows, found[0].cols, found[0].kind)
    };
    assert_eq!(shape("model.layers.1.self_attn.q_proj.weight"), (128, 64, TensorKind::Matrix));
    assert_eq!(shape("model.layers.1.self_attn.k_proj.weight"), (64, 64, TensorKind::Matrix));
    assert_eq!(shape("model.layers.1.self_attn.o_proj.weight"), (64, 128, TensorKind::Matrix));
    assert_eq!(shape("model.layers.0.mlp.down_proj.weight"), (64, 172, TensorKind::Matrix));
    assert_eq!(shape("model.norm.weight"), (1, 64, TensorKind::Vector));
    assert_eq!(shape("lm_head.weight"), (100, 64, TensorKind::Matrix));
    let tied = parsed(json!({"tie_word_embeddings": true}));
    assert!(tied.tensors().all(|t| t.name != "lm_head.weight"));
}
