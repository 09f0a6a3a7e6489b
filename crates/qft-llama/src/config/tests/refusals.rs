//! Keys that cannot be honoured are refused by name.

use super::{parse, text};
use crate::Error;
use crate::config::{Family, LlamaConfig};
use serde_json::{Value, json};

fn wrong(result: Result<LlamaConfig, Error>, key: &str, got: &str) -> Option<String> {
    let text = match result {
        Err(error @ Error::Config { .. }) => error.to_string(),
        other => format!("{other:?}"),
    };
    let parts = [format!("`{key}`"), got.into(), "expected".into(), "; ".into()];
    (!parts.iter().all(|part| text.contains(part))).then_some(text)
}

#[test]
fn what_no_family_has() {
    let longrope = |short: Value| {
        json!({"rope_scaling": {"type": "longrope", "short_factor": short,
                                "long_factor": [1, 1, 1, 1]}})
    };
    let by_type = |sliding: Value| {
        json!({"rope_parameters": {"sliding_attention": sliding,
                                   "full_attention": {"rope_type": "default"}}})
    };
    let cases = [
        (Family::Llama, json!({"model_type": "gemma3_text"}), "model_type", "gemma3_text"),
        (
            Family::Llama,
            json!({"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}),
            "text_config.model_type",
            "ministral3",
        ),
        (
            Family::Qwen2,
            json!({"architectures": ["LlamaForCausalLM"]}),
            "architectures",
            "LlamaForCausalLM",
        ),
        (Family::Mistral, json!({"attention_bias": true}), "attention_bias", "true"),
        (Family::Phi3, json!({"mlp_bias": true}), "mlp_bias", "true"),
        (Family::Qwen3, json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor", "0.5"),
        (Family::Phi3, json!({"partial_rotary_factor": 0.4}), "partial_rotary_factor", "0.4"),
        (
            Family::Phi3,
            json!({"rope_scaling": {"type": "linear", "factor": 2}}),
            "rope_scaling.type",
            "linear",
        ),
        (Family::Llama, longrope(json!([1, 1])), "rope_scaling.short_factor", "2"),
        (Family::Llama, longrope(json!([1, 1, 0, 1])), "rope_scaling.short_factor", "0"),
        (Family::Llama, longrope(json!([1, 1, "x", 1])), "rope_scaling.short_factor", "x"),
        (
            Family::Llama,
            json!({"rope_scaling": {"type": "yarn"}}),
            "rope_scaling.factor",
            "nothing",
        ),
        (
            Family::Llama,
            json!({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": -1}}),
            "rope_scaling.beta_fast",
            "-1",
        ),
        (
            Family::Llama,
            json!({"rope_scaling": {"type": "linear", "factor": 2},
                   "rope_parameters": {"rope_type": "default"}}),
            "rope_parameters",
            "another rope",
        ),
        (
            Family::Olmo3,
            json!({"rope_parameters": {"rope_type": "default"}}),
            "rope_parameters.rope_type",
            "it",
        ),
        (
            Family::Olmo3,
            by_type(json!({"rope_type": "default", "rope_theta": 1e4})),
            "rope_parameters.sliding_attention.rope_theta",
            "10000",
        ),
        (
            Family::Olmo3,
            by_type(json!({"rope_type": "linear", "factor": 2})),
            "rope_parameters.sliding_attention.rope_type",
            "another",
        ),
        (
            Family::Olmo3,
            json!({"rope_scaling": {"type": "yarn", "factor": 2}}),
            "rope_scaling.type",
            "yarn",
        ),
        // transformers gives the windowed layers its own default here.
        (
            Family::Olmo3,
            json!({"rope_theta": 1e4}),
            "rope_parameters.sliding_attention.rope_theta",
            "500000",
        ),
        (Family::Qwen2, json!({"layer_types": ["full_attention"]}), "layer_types", "1 entries"),
        (Family::Qwen3, json!({"layer_types": vec!["conv"; 8]}), "layer_types", "conv"),
        (Family::SmolLm3, json!({"no_rope_layers": [1]}), "no_rope_layers", "1 entries"),
        (Family::SmolLm3, json!({"no_rope_layers": vec![2; 8]}), "no_rope_layers", "2"),
        (Family::SmolLm3, json!({"no_rope_layer_interval": 0}), "no_rope_layer_interval", "0"),
        (Family::Mistral, json!({"sliding_window": 0}), "sliding_window", "0"),
        (Family::Granite, json!({"logits_scaling": 0}), "logits_scaling", "0"),
        (
            Family::Llama,
            json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
            "quantization_config",
            "GPTQ",
        ),
        (
            Family::Llama,
            json!({"quantization_config": {"quant_method": "awq"}}),
            "quantization_config",
            "AWQ",
        ),
        (
            Family::Llama,
            json!({"quantization_config": {"load_in_4bit": true}}),
            "quantization_config",
            "bitsandbytes",
        ),
        (
            Family::Llama,
            json!({"quantization": {"group_size": 64, "bits": 4}}),
            "quantization",
            "MLX",
        ),
    ];
    let faults: Vec<_> = (cases.into_iter())
        .filter_map(|(family, changes, key, got)| {
            wrong(parse(&text(family, changes.clone())), key, got)
                .map(|text| format!("{changes}: {text}"))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
