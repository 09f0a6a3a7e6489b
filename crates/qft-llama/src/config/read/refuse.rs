//! Keys that change the arithmetic in a way that is not implemented for any family.

use super::object::Object;
use crate::Error;
use crate::config::Family;
use serde_json::Value;

const UNQUANTIZED: &str =
    "use the model's unquantized weights; they are usually in the folder it was made from";
/// Probabilities of dropping values in training, which is not done.
const DROPOUTS: [&str; 3] = ["attention_dropout", "resid_pdrop", "embd_pdrop"];

/// Refuses what stands at the root of the file, outside a text model's part.
pub(super) fn quantized(root: &Object<'_>) -> Result<(), Error> {
    for key in ["quantization_config", "quantization"] {
        if let Some(value) = root.get(key) {
            let got = format!("weights quantized by {}", method(value));
            return Err(root.error(key, "no such key", got, UNQUANTIZED));
        }
    }
    Ok(())
}

/// The name of the program that quantized a model, from its settings.
fn method(settings: &Value) -> String {
    match settings.get("quant_method").and_then(Value::as_str) {
        Some("gptq") => "GPTQ".into(),
        Some("awq") => "AWQ".into(),
        Some("bitsandbytes") => "bitsandbytes".into(),
        Some(other) => other.into(),
        // MLX names no method, only sizes.
        None if settings.get("group_size").is_some() => "MLX".into(),
        None if settings.get("load_in_4bit").is_some() => "bitsandbytes".into(),
        None => "a method without a name".into(),
    }
}

/// Refuses what stands in the text model's part.
pub(super) fn unsupported(object: &Object<'_>, family: Family) -> Result<(), Error> {
    if let Some(name) = object.get("hidden_act")
        && !matches!(name.as_str(), Some("silu" | "swish"))
    {
        return Err(object.unsupported("hidden_act", "silu", name));
    }
    // Qwen2 configurations carry the key with either value; the family alone decides.
    let ignored = family == Family::Qwen2;
    for (key, known) in [
        ("attention_bias", family.has_attention_bias_key() || ignored),
        ("mlp_bias", family.has_mlp_bias_key()),
    ] {
        if !known && object.flag(key)? == Some(true) {
            return Err(object.unsupported(key, "false", true));
        }
    }
    // Ranks only say how the products were once split among devices.
    object.optional_size("pretraining_tp")?;
    for key in DROPOUTS {
        let dropout = object.optional_number(key)?.unwrap_or(0.0);
        if dropout != 0.0 {
            tracing::warn!("{}: {key} {dropout} is not applied", object.file.display());
        }
    }
    Ok(())
}
