//! Rotary positions in both styles: `rope_parameters` of transformers 5, `rope_theta` and `rope_scaling` of the others.

use super::shortest;
use crate::config::rope::longrope_attention_factor;
use crate::config::{Family, LayerRope, LlamaConfig, Rope, RopeScaling};
use serde_json::{Map, Value, json};

impl LlamaConfig {
    /// The keys of rotary positions in both styles, as they stand at the top of a file.
    pub(crate) fn rope_keys(&self) -> Map<String, Value> {
        let (Rope { theta, rotated, .. }, scaling) = (&self.rope, self.scaling_keys());
        let mut parameters = scaling.clone().unwrap_or_else(default_keys);
        parameters.insert("rope_theta".into(), json!(theta));
        let mut keys = Map::new();
        keys.insert("rope_theta".into(), json!(theta));
        if let Some(rotated) = rotated {
            let part = part(*rotated, self.head_dim);
            keys.insert("partial_rotary_factor".into(), json!(part));
            parameters.insert("partial_rotary_factor".into(), json!(part));
        }
        // Phi has this key at the top, and no other families know it there.
        let context = match &self.rope.scaling {
            RopeScaling::LongRope { original_max_position_embeddings: context, .. } => {
                Some(context).filter(|_| self.family == Family::Phi3)
            }
            _ => None,
        };
        if let Some(context) = context {
            keys.insert("original_max_position_embeddings".into(), json!(context));
        }
        let parameters = match self.family {
            Family::Olmo3 => self.by_layer_type(parameters),
            _ => Value::Object(parameters),
        };
        keys.insert("rope_parameters".into(), parameters);
        keys.insert(
            "rope_scaling".into(),
            scaling.map_or(Value::Null, |keys| self.older_spelling(keys)),
        );
        keys
    }

    /// For Phi, transformers 4 knows only `type`.
    fn older_spelling(&self, mut keys: Map<String, Value>) -> Value {
        if self.family == Family::Phi3
            && let Some(kind) = keys.remove("rope_type")
        {
            keys.insert("type".into(), kind);
        }
        Value::Object(keys)
    }

    fn by_layer_type(&self, full: Map<String, Value>) -> Value {
        let plain = self.layers.iter().any(|layer| layer.rope == LayerRope::Plain);
        let mut windowed = if plain { default_keys() } else { full.clone() };
        windowed.insert("rope_theta".into(), json!(self.rope.theta));
        json!({"full_attention": full, "sliding_attention": windowed})
    }

    /// The rescaling; `None` if there is none.
    fn scaling_keys(&self) -> Option<Map<String, Value>> {
        let value = match &self.rope.scaling {
            RopeScaling::Default => return None,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Dynamic { factor, .. } => {
                json!({"rope_type": "dynamic", "factor": factor})
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
                attention_factor,
            } => json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original_max_position_embeddings,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "truncate": truncate,
                "attention_factor": shortest(*attention_factor),
            }),
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings: context,
                attention_factor,
            } => {
                let list =
                    |factors: &[f32]| -> Value { factors.iter().copied().map(shortest).collect() };
                let mut value = json!({
                    "rope_type": "longrope",
                    "short_factor": list(short_factor),
                    "long_factor": list(long_factor),
                });
                if self.family != Family::Phi3 {
                    value["original_max_position_embeddings"] = json!(context);
                }
                // For Phi, transformers 4 wants no other keys, unless they are needed.
                let ratio = self.max_position_embeddings as f64 / *context as f64;
                if longrope_attention_factor(ratio, *context) as f32 != *attention_factor {
                    value["attention_factor"] = shortest(*attention_factor);
                }
                value
            }
        };
        value.as_object().cloned()
    }
}

fn default_keys() -> Map<String, Value> {
    Map::from_iter([("rope_type".into(), json!("default"))])
}

/// `rotated / head_dim`, such that the product with `head_dim`, cut to a whole number, is `rotated` again.
fn part(rotated: usize, head_dim: usize) -> f64 {
    let part = rotated as f64 / head_dim as f64;
    if ((head_dim as f64 * part) as usize) < rotated { part.next_up() } else { part }
}
