//! Rotary frequencies and attention factors against transformers 5.24 (torch 2.15, f32): what `ROPE_INIT_FUNCTIONS`
//! returns for a model of width 64 with heads of 16 and 512 positions.

use super::text;
use crate::config::{Family, LlamaConfig};
use serde_json::{Value, json};

/// Every step is one f32 rounding, as there; only the power may differ in its last bit.
const TOLERANCE: f64 = 4.0 * f32::EPSILON as f64;

fn model(family: Family, rope: Value) -> LlamaConfig {
    let mut changes = json!({"num_attention_heads": 4, "num_key_value_heads": 4,
                             "head_dim": 16, "max_position_embeddings": 512});
    changes.as_object_mut().unwrap().extend(rope.as_object().unwrap().clone());
    super::parse(&text(family, changes)).unwrap()
}

fn check(config: &LlamaConfig, seq_len: usize, frequencies: &[f64], attention_factor: f64) {
    let got = config.clone().for_sequences(seq_len).inv_freq();
    assert_eq!(got.len(), frequencies.len());
    assert_eq!(got.len() * 2, config.rotated_size());
    for (got, want) in got.iter().zip(frequencies) {
        let got = f64::from(*got);
        assert!((got / want - 1.0).abs() <= TOLERANCE, "{got} {want} {:?}", config.rope);
    }
    let factor = f64::from(config.rope.attention_factor());
    assert!((factor / attention_factor - 1.0).abs() <= TOLERANCE, "{factor} {attention_factor}");
}

#[test]
fn yarn() {
    let plain = json!({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 8.0,
        "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1}});
    let frequencies = [
        1.0,
        0.223994657,
        0.0416666642,
        0.00395284733,
        0.00124999997,
        0.000395284733,
        0.000125000006,
        3.95284733e-05,
    ];
    check(&model(Family::Llama, plain), 512, &frequencies, 1.20794415);

    let scales = json!({"rope_theta": 10000.0, "rope_scaling": {"type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 128, "mscale": 1.0, "mscale_all_dim": 0.5,
        "truncate": false, "beta_fast": 8.0, "beta_slow": 2.0}});
    let frequencies = [
        1.0,
        0.279174536,
        0.0259965975,
        0.00790569466,
        0.00249999994,
        0.000790569466,
        0.000250000012,
        7.90569466e-05,
    ];
    check(&model(Family::Qwen3, scales), 512, &frequencies, 1.06482163);

    let no_factor = json!({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn",
        "factor": null, "original_max_position_embeddings": 128}});
    let frequencies = [
        1.0,
        0.237170815,
        0.049999997,
        0.00790569466,
        0.00249999994,
        0.000790569466,
        0.000250000012,
        7.90569466e-05,
    ];
    check(&model(Family::Llama, no_factor), 512, &frequencies, 1.13862944);

    let olmo = json!({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "yarn", "factor": 8.0,
        "original_max_position_embeddings": 64, "attention_factor": 1.25}});
    let olmo = model(Family::Olmo3, olmo);
    let frequencies = [
        1.0,
        0.109081551,
        0.00470075384,
        0.000911583134,
        0.000176776681,
        3.42810235e-05,
        6.64786967e-06,
        1.28917316e-06,
    ];
    check(&olmo, 512, &frequencies, 1.25);
    assert_eq!(olmo.plain_inv_freq(), model(Family::Olmo3, json!({})).inv_freq());
}

#[test]
fn longrope() {
    let phi = json!({"original_max_position_embeddings": 64, "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                         "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]}});
    let phi = model(Family::Phi3, phi);
    let short = [1.0, 0.195857689, 0.0386799015, 0.0076923077, 0.00153888157, 0.000309439318];
    let long = [1.0, 0.107721724, 0.011603971, 0.00124999997, 0.000134652146, 1.45049671e-05];
    check(&phi, 64, &short, 1.22474487);
    check(&phi, 65, &long, 1.22474487);
    assert_eq!(phi.inv_freq(), phi.clone().for_sequences(64).inv_freq());

    let llama = json!({"rope_scaling": {"rope_type": "longrope", "factor": 4.0,
        "original_max_position_embeddings": 128, "short_factor": [1, 1, 1, 1, 1, 1, 1, 1],
        "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]}});
    let frequencies = [
        1.0,
        0.158113882,
        0.0250000004,
        0.00395284733,
        0.000624999986,
        9.88211832e-05,
        1.56250007e-05,
        2.47052958e-06,
    ];
    check(&model(Family::Llama, llama), 200, &frequencies, 1.13389342);
}

#[test]
fn dynamic_linear_and_llama3() {
    let dynamic = json!({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}});
    let dynamic = model(Family::Llama, dynamic);
    let short = [
        1.0,
        0.316227764,
        0.100000001,
        0.0316227786,
        0.00999999978,
        0.00316227786,
        0.00100000005,
        0.000316227786,
    ];
    let long = [
        1.0,
        0.251273751,
        0.0631385073,
        0.0158650484,
        0.0039864704,
        0.0010016954,
        0.000251699792,
        6.32455485e-05,
    ];
    check(&dynamic, 512, &short, 1.0);
    check(&dynamic, 1024, &long, 1.0);

    let linear = json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}});
    let quarter = short.map(|frequency| frequency / 4.0);
    check(&model(Family::Llama, linear), 512, &quarter, 1.0);

    let llama3 = json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}});
    let frequencies = [
        1.0,
        0.244384587,
        0.0130422562,
        0.00395284733,
        0.00124999997,
        0.000395284733,
        0.000125000006,
        3.95284733e-05,
    ];
    check(&model(Family::Llama, llama3), 512, &frequencies, 1.0);
}
