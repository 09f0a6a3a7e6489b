//! What a configuration of each family means, as transformers 5.24 reads it.

use super::{parse, parsed, text};
use crate::config::{
    AttentionBias, Family, LayerKind, LayerRope, LlamaConfig, Multipliers, NormPlacement, QkNorm,
    RopeScaling,
};
use serde_json::{Value, json};

/// The windows of the layers, 0 for none.
fn windows(config: &LlamaConfig) -> Vec<usize> {
    config.layers.iter().map(|layer| layer.window.unwrap_or(0)).collect()
}

#[test]
fn absent_keys_mean_what_the_family_says() {
    // Family, epsilon, base, positions, whether tied, head size, windows of the first and of the fourth layer.
    let cases = [
        (Family::Llama, 1e-6, 1e4, 2048, false, 8, [0, 0]),
        (Family::Mistral, 1e-6, 1e4, 131_072, false, 8, [4096, 4096]),
        (Family::Qwen2, 1e-6, 1e4, 32_768, false, 8, [0, 0]),
        (Family::Qwen3, 1e-6, 1e4, 32_768, false, 128, [0, 0]),
        (Family::SmolLm3, 1e-6, 2e6, 32_768, true, 8, [0, 0]),
        (Family::Granite, 1e-6, 1e4, 2048, false, 8, [0, 0]),
        (Family::Phi3, 1e-5, 1e4, 4096, false, 8, [0, 0]),
        (Family::Olmo2, 1e-5, 1e4, 2048, false, 8, [0, 0]),
        (Family::Olmo3, 1e-5, 5e5, 2048, false, 8, [4096, 0]),
    ];
    for (family, eps, theta, positions, tied, head_dim, [first, fourth]) in cases {
        let config = parsed(family, json!({}));
        assert_eq!(config.family, family);
        assert_eq!((config.rms_norm_eps, config.rope.theta), (eps, theta), "{family:?}");
        assert_eq!(config.max_position_embeddings, positions, "{family:?}");
        assert_eq!((config.tie_word_embeddings, config.head_dim), (tied, head_dim), "{family:?}");
        assert_eq!((windows(&config)[0], windows(&config)[3]), (first, fourth), "{family:?}");
        assert_eq!(config.layers.len(), 8);
    }
    let no_heads = json!({"num_key_value_heads": "absent"});
    let heads = |family, changes: &Value| parsed(family, changes.clone()).num_key_value_heads;
    assert_eq!(heads(Family::Llama, &no_heads), 8);
    assert_eq!(heads(Family::Mistral, &no_heads), 8);
    assert_eq!(heads(Family::SmolLm3, &no_heads), 4);
    let sixteen = json!({"num_key_value_heads": "absent", "num_attention_heads": 16});
    assert_eq!(heads(Family::Mistral, &sixteen), 8);
    let none = json!({"num_key_value_heads": null, "num_attention_heads": 16});
    assert_eq!(heads(Family::Mistral, &none), 16);
}

#[test]
fn parts_of_a_block() {
    let part = |family, changes| {
        let config = parsed(family, changes);
        (config.attention_bias, config.mlp_bias, config.qk_norm, config.norms)
    };
    let (none, all) = (AttentionBias::None, AttentionBias::Qkvo);
    let (before, after) = (NormPlacement::Before, NormPlacement::After);
    let biased = json!({"attention_bias": true, "mlp_bias": true});
    assert_eq!(part(Family::Llama, json!({})), (none, false, None, before));
    assert_eq!(part(Family::Llama, biased.clone()), (all, true, None, before));
    assert_eq!(part(Family::Granite, biased), (all, true, None, before));
    // The family decides here, whatever the key says.
    for flag in [json!({}), json!({"attention_bias": false})] {
        assert_eq!(part(Family::Qwen2, flag), (AttentionBias::Qkv, false, None, before));
    }
    assert_eq!(part(Family::Qwen3, json!({})), (none, false, Some(QkNorm::Head), before));
    let biased = json!({"attention_bias": true});
    assert_eq!(part(Family::Qwen3, biased), (all, false, Some(QkNorm::Head), before));
    assert_eq!(part(Family::Olmo2, json!({})), (none, false, Some(QkNorm::Width), after));
    assert!(Family::Phi3.fused() && !Family::Llama.fused());
}

#[test]
fn granite_multiplies() {
    let one = Multipliers { attention: Some(1.0), ..Multipliers::default() };
    assert_eq!(parsed(Family::Granite, json!({})).multipliers, one);
    let keys = json!({"embedding_multiplier": 12.0, "attention_multiplier": 0.015625,
                      "residual_multiplier": 0.22, "logits_scaling": 8.0});
    let four =
        Multipliers { embedding: 12.0, attention: Some(0.015625), residual: 0.22, logits: 8.0 };
    assert_eq!(parsed(Family::Granite, keys.clone()).multipliers, four);
    assert_eq!(parsed(Family::Llama, keys).multipliers, Multipliers::default());
}

#[test]
fn windows_of_each_family() {
    let of = |family, changes| windows(&parsed(family, changes));
    assert_eq!(of(Family::Mistral, json!({"sliding_window": null})), [0; 8]);
    assert_eq!(of(Family::Mistral, json!({"sliding_window": 16})), [16; 8]);
    assert_eq!(of(Family::Phi3, json!({"sliding_window": 16})), [16; 8]);
    // transformers has no windows here, whatever the key says.
    let used = json!({"sliding_window": 16, "use_sliding_window": true});
    assert_eq!(of(Family::Llama, used.clone()), [0; 8]);
    assert_eq!(of(Family::Granite, used), [0; 8]);
    for family in [Family::Qwen2, Family::Qwen3] {
        assert_eq!(of(family, json!({"sliding_window": 16})), [0; 8]);
        let late =
            json!({"sliding_window": 16, "use_sliding_window": true, "max_window_layers": 6});
        assert_eq!(of(family, late), [0, 0, 0, 0, 0, 0, 16, 16]);
        let (full, slides) = ("full_attention", "sliding_attention");
        let listed = json!({"sliding_window": 16, "use_sliding_window": true, "layer_types":
            [slides, full, full, full, full, full, full, full]});
        assert_eq!(of(family, listed), [16, 0, 0, 0, 0, 0, 0, 0]);
    }
    let smol = json!({"sliding_window": 16, "use_sliding_window": true});
    assert_eq!(of(Family::SmolLm3, smol), [0, 0, 0, 16, 0, 0, 0, 16]);
    let olmo = parsed(Family::Olmo3, json!({"sliding_window": 16}));
    assert_eq!(windows(&olmo), [16, 16, 16, 0, 16, 16, 16, 0]);
    assert_eq!((olmo.shortest_window(), olmo.longest_sequence()), (Some(16), 16));
    let llama = parsed(Family::Llama, json!({}));
    assert_eq!((llama.shortest_window(), llama.longest_sequence()), (None, 2048));
}

#[test]
fn layers_without_positions() {
    let of = |changes| -> Vec<bool> {
        let config = parsed(Family::SmolLm3, changes);
        config.layers.iter().map(|layer| layer.rope == LayerRope::Scaled).collect()
    };
    let (yes, no) = (true, false);
    assert_eq!(of(json!({})), [yes, yes, yes, no, yes, yes, yes, no]);
    let second = [yes, no, yes, no, yes, no, yes, no];
    assert_eq!(of(json!({"no_rope_layer_interval": 2})), second);
    let listed = json!({"no_rope_layers": [0, 1, 1, 1, 1, 1, 1, 1, 0, 0]});
    assert_eq!(of(listed), [no, yes, yes, yes, yes, yes, yes, yes]);
}

#[test]
fn ropes_of_layer_types() {
    let yarn = json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256});
    let mut full = yarn.clone();
    full["rope_theta"] = json!(500_000.0);
    let plain = json!({"rope_type": "default", "rope_theta": 500_000.0});
    let new = json!({"rope_parameters": {"full_attention": full, "sliding_attention": plain}});
    let new = parsed(Family::Olmo3, new);
    let old = json!({"rope_theta": 500_000.0, "rope_scaling": yarn});
    assert_eq!(parsed(Family::Olmo3, old), new);
    assert!(matches!(new.rope.scaling, RopeScaling::Yarn { factor: 8.0, .. }));
    let windowed = LayerKind { rope: LayerRope::Plain, window: Some(4096) };
    assert_eq!(new.layers[..4], [windowed, windowed, windowed, LayerKind::default()]);
    // The same rope everywhere.
    let same = json!({"rope_parameters": {"full_attention": full, "sliding_attention": full}});
    let same = parsed(Family::Olmo3, same);
    assert!(same.layers.iter().all(|layer| layer.rope == LayerRope::Scaled));
}

#[test]
fn contexts_of_pretraining() {
    let original = |family, changes: Value| match parsed(family, changes).rope.scaling {
        RopeScaling::Yarn { original_max_position_embeddings: size, .. }
        | RopeScaling::LongRope { original_max_position_embeddings: size, .. } => size,
        other => panic!("{other:?}"),
    };
    let yarn = json!({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64});
    let both = json!({"original_max_position_embeddings": 128, "rope_scaling": yarn});
    assert_eq!(original(Family::Llama, both), 128);
    assert_eq!(original(Family::Llama, json!({"rope_scaling": yarn})), 64);
    let neither = json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}});
    assert_eq!(original(Family::Llama, neither), 2048);
    let factors = json!([1.0, 1.0, 1.0, 1.0]);
    for kind in ["su", "yarn", "longrope"] {
        let phi = json!({"rope_scaling": {"type": kind, "short_factor": factors,
            "long_factor": factors, "original_max_position_embeddings": 64}});
        assert_eq!(original(Family::Phi3, phi), 4096, "{kind}");
    }
}

#[test]
fn names_of_families() {
    for family in Family::ALL {
        let only = json!({"model_type": "absent", "architectures": [family.architecture()]});
        assert_eq!(parsed(family, only).family, family);
        let wrapped = json!({"model_type": "some_vlm", "architectures": ["SomeVlm"],
            "tie_word_embeddings": true,
            "text_config": serde_json::from_str::<Value>(&text(family, json!({}))).unwrap()});
        let config = parse(&wrapped.to_string()).unwrap();
        assert_eq!((config.family, config.tie_word_embeddings), (family, true));
    }
    // The same arithmetic under either name.
    let mixed = json!({"architectures": ["LlamaForCausalLM"]});
    assert_eq!(parsed(Family::Mistral, mixed).family, Family::Mistral);
}

#[test]
fn what_has_no_effect_is_accepted() {
    for changes in [
        json!({"pretraining_tp": 2}),
        json!({"hidden_act": "swish"}),
        json!({"eos_token_id": -1}),
        json!({"layer_types": vec!["full_attention"; 8]}),
        json!({"rope_scaling": {}, "rope_parameters": {}}),
        json!({"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 1e4}}),
        json!({"partial_rotary_factor": 1.0}),
    ] {
        let plain = parsed(Family::Llama, json!({}));
        assert_eq!(parsed(Family::Llama, changes.clone()), plain, "{changes}");
    }
}

/// Every switch of every family, through the text of a file and back.
#[test]
fn nothing_is_lost_in_writing() {
    let used = |size: usize| {
        json!({"use_sliding_window": true, "sliding_window": size,
                                    "max_window_layers": 5})
    };
    let cases = [
        (Family::Llama, json!({"attention_bias": true, "mlp_bias": true, "rms_norm_eps": 3e-6})),
        (Family::Llama, json!({"rope_scaling": {"type": "dynamic", "factor": 3.5}})),
        (
            Family::Llama,
            json!({"rope_scaling": {"type": "longrope", "attention_factor": 1.7,
            "factor": 3.0, "short_factor": [1, 2, 3, 4.4], "long_factor": [1.1, 2, 3, 4],
            "original_max_position_embeddings": 100}}),
        ),
        (Family::Mistral, json!({"sliding_window": 100})),
        (Family::Mistral, json!({"sliding_window": null})),
        (Family::Qwen2, used(64)),
        (
            Family::Qwen2,
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 2.0,
            "original_max_position_embeddings": 99, "truncate": false, "mscale_all_dim": 0.3}}),
        ),
        (Family::Qwen3, used(64)),
        (Family::Qwen3, json!({"attention_bias": true, "head_dim": 32})),
        (Family::SmolLm3, used(64)),
        (Family::SmolLm3, json!({"no_rope_layer_interval": 3, "tie_word_embeddings": false})),
        (Family::Granite, json!({"attention_multiplier": 0.3, "logits_scaling": 7.7})),
        (Family::Phi3, json!({"partial_rotary_factor": 0.75, "sliding_window": 33})),
        (
            Family::Phi3,
            json!({"partial_rotary_factor": 0.5, "rope_scaling": {"type": "su",
            "short_factor": [1, 2], "long_factor": [3.3, 4]}, "head_dim": 8}),
        ),
        (Family::Olmo2, json!({"attention_bias": true})),
        (
            Family::Olmo3,
            json!({"sliding_window": 33, "rope_scaling": {"rope_type": "yarn",
            "factor": 2.5, "original_max_position_embeddings": 77}}),
        ),
        (Family::Olmo3, json!({"sliding_window": null})),
        (
            Family::Olmo3,
            json!({"rope_scaling": {"rope_type": "longrope", "factor": 2.0,
            "short_factor": [1, 1, 1, 1.5], "long_factor": [1, 2, 3, 4],
            "original_max_position_embeddings": 64}}),
        ),
    ];
    let plain = Family::ALL.map(|family| (family, json!({})));
    for (family, changes) in cases.into_iter().chain(plain) {
        let config = parsed(family, changes.clone());
        let text = config.to_json("float32");
        assert_eq!(parse(&text).unwrap(), config, "{changes}: {text}");
        // Each of the two spellings of rope says it alone.
        let value: Value = serde_json::from_str(&text).unwrap();
        for other in ["rope_parameters", "rope_scaling"] {
            let mut half = value.clone();
            half.as_object_mut().unwrap().remove(other);
            if family == Family::Olmo3
                && other == "rope_parameters"
                && config.layers[0].window.is_none()
            {
                continue;
            }
            assert_eq!(parse(&half.to_string()).unwrap().rope, config.rope, "{changes}: {half}");
        }
    }
}
