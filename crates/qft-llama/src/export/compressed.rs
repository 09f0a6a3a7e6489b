//! Weights in 8 bits for vLLM and transformers, in the format of compressed-tensors: W8A8.
//!
//! Linear layers have an i8 for each weight and a scale for each row; inputs are quantized when they are there, with a scale
//! for each token. Embedding, head, norms and biases stay float.

use crate::config::{TensorKind, TensorSpec};
use serde_json::{Value, json};

/// The largest code. -128 is not used, so that codes are symmetric.
const LARGEST: f32 = 127.0;

/// `quantization_config`: see docs/EXPORT.md for what each key is needed for.
pub(super) fn settings() -> Value {
    let of = |strategy: &str, dynamic: bool| json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": strategy, "dynamic": dynamic});
    json!({
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": null,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": of("channel", false),
                "input_activations": of("token", true),
                "output_activations": null,
            },
        },
    })
}

/// Whether a parameter is the weight of a linear layer of a block.
pub(super) fn is_quantized(spec: &TensorSpec) -> bool {
    spec.kind == TensorKind::Matrix && spec.name.starts_with("model.layers.")
}

/// The name of the scales of a weight.
pub(super) fn scale_name(weight: &str) -> String {
    format!("{weight}_scale")
}

/// Writes codes of a row and returns their scale: `value = scale · code`, the largest magnitude is 127.
///
/// Errors: the column of the first number that is not finite.
pub(super) fn quantize_row(values: &[f32], out: &mut [u8]) -> Result<f32, usize> {
    if let Some(col) = values.iter().position(|value| !value.is_finite()) {
        return Err(col);
    }
    let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    // A row of zeros, or of what no scale can make larger than one.
    let scale = (most / LARGEST).max(f32::MIN_POSITIVE);
    for (out, value) in out.iter_mut().zip(values) {
        *out = (value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8 as u8;
    }
    Ok(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_within_half_a_step() {
        let row: Vec<f32> = (0..100).map(|i| (i as f32 - 70.0) * 0.013).collect();
        let mut codes = vec![0; 100];
        let scale = quantize_row(&row, &mut codes).unwrap();
        assert_eq!(scale, 70.0 * 0.013 / 127.0);
        for (value, code) in row.iter().zip(&codes) {
            let code = f32::from(*code as i8);
            assert!((code * scale - value).abs() <= 0.5001 * scale && code >= -127.0);
        }
        let zeros = quantize_row(&[0.0; 100], &mut codes).unwrap();
        assert!(zeros > 0.0 && codes.iter().all(|&code| code == 0));
        let tiny = quantize_row(&[f32::from_bits(1); 100], &mut codes).unwrap();
        assert!(tiny.is_normal());
        assert_eq!(quantize_row(&[0.0, f32::NAN], &mut codes), Err(1));
    }
}
