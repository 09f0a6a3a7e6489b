//! A configuration as the text of a `config.json`.

mod rope;

use super::{AttentionBias, Family, LayerRope, LlamaConfig};
use serde_json::{Map, Value, json};

impl LlamaConfig {
    /// The text of a `config.json` of the same family that transformers reads, in the style of version 5 and in that
    /// which older versions and other programs know, with `dtype` as the type of the weights, such as `bfloat16`.
    pub fn to_json(&self, dtype: &str) -> String {
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        let mut map = Map::new();
        let mut add = |part: Value| {
            if let Value::Object(part) = part {
                map.extend(part);
            }
        };
        add(json!({
            "architectures": [self.family.architecture()],
            "model_type": self.family.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": shortest(self.rms_norm_eps),
        }));
        add(Value::Object(self.rope_keys()));
        add(self.family_keys());
        add(json!({
            "hidden_act": "silu",
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "torch_dtype": dtype,
        }));
        // The alternate form of a `Value` is indented.
        format!("{:#}\n", Value::Object(map))
    }

    /// The keys that only some families have.
    fn family_keys(&self) -> Value {
        let mut map = Map::new();
        let mut add = |key: &str, value: Value| map.insert(key.into(), value);
        if self.family.has_attention_bias_key() {
            add("attention_bias", json!(self.attention_bias == AttentionBias::Qkvo));
        }
        if self.family.has_mlp_bias_key() {
            add("mlp_bias", json!(self.mlp_bias));
        }
        let window = self.shortest_window();
        match self.family {
            Family::Llama | Family::Olmo2 => {}
            Family::Mistral | Family::Phi3 => {
                add("sliding_window", json!(window));
            }
            Family::Granite => {
                let numbers = &self.multipliers;
                add("embedding_multiplier", shortest(numbers.embedding));
                add("attention_multiplier", shortest(numbers.attention.unwrap_or(1.0)));
                add("residual_multiplier", shortest(numbers.residual));
                add("logits_scaling", shortest(numbers.logits));
            }
            Family::Olmo3 => {
                add("sliding_window", json!(window));
                add("layer_types", self.layer_types());
            }
            Family::Qwen2 | Family::Qwen3 => {
                let full = self.layers.iter().take_while(|layer| layer.window.is_none()).count();
                add("use_sliding_window", json!(window.is_some()));
                add("sliding_window", json!(window));
                add("max_window_layers", json!(full));
                add("layer_types", self.layer_types());
            }
            Family::SmolLm3 => {
                let roped = |layer: &super::LayerKind| u8::from(layer.rope != LayerRope::None);
                add("no_rope_layers", self.layers.iter().map(roped).collect());
                add("use_sliding_window", json!(window.is_some()));
                add("sliding_window", json!(window));
                add("layer_types", self.layer_types());
            }
        }
        Value::Object(map)
    }

    fn layer_types(&self) -> Value {
        // In OLMo 3 a layer of this type may do without a window, but not without its rope.
        let name = |layer: &super::LayerKind| match (layer.window, layer.rope) {
            (None, LayerRope::None | LayerRope::Scaled) => "full_attention",
            _ => "sliding_attention",
        };
        self.layers.iter().map(name).collect()
    }
}

/// Through the shortest decimal text, so that 1e-5 stays 1e-5.
fn shortest(number: f32) -> Value {
    let number: f64 = number.to_string().parse().unwrap_or(f64::from(number));
    json!(number)
}
