//! A configuration as the text of a `config.json`.

use super::{LlamaConfig, RopeScaling};
use serde_json::{Value, json};

impl LlamaConfig {
    /// The text of a `config.json` that transformers reads, in the style that all its versions know, with
    /// `dtype` as the type of the weights, such as `bfloat16`.
    pub fn to_json(&self, dtype: &str) -> String {
        let scaling = match self.rope.scaling {
            RopeScaling::Default => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
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
        };
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        // Through the shortest decimal text, so that 1e-5 stays 1e-5.
        let eps = self.rms_norm_eps.to_string().parse().unwrap_or(f64::from(self.rms_norm_eps));
        let value = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": eps,
            "rope_theta": self.rope.theta,
            "rope_scaling": scaling,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": false,
            "attention_dropout": 0.0,
            "mlp_bias": false,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "torch_dtype": dtype,
        });
        // The alternate form of a `Value` is indented.
        format!("{value:#}\n")
    }
}
