//! Shapes of well-known models, for planning without a folder.

use super::{LlamaConfig, Rope, RopeScaling};
use crate::Error;

/// The names that [`LlamaConfig::preset`] knows.
pub const PRESETS: [&str; 6] =
    ["llama-2-7b", "llama-2-13b", "llama-3-8b", "tinyllama-1.1b", "llama-110m", "llama-15m"];

impl LlamaConfig {
    /// The shape of a well-known model, by name; see [`PRESETS`].
    ///
    /// Errors: [`Error::UnknownPreset`].
    pub fn preset(name: &str) -> Result<Self, Error> {
        // Unless a name says otherwise: multi-head attention, the LLaMA 2 vocabulary, untied embeddings.
        let shape = |hidden: usize, ffn: usize, layers: usize, heads: usize| Self {
            vocab_size: 32_000,
            hidden_size: hidden,
            intermediate_size: ffn,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim: hidden / heads,
            rms_norm_eps: 1e-5,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
            max_position_embeddings: 2048,
            tie_word_embeddings: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
        };
        Ok(match name {
            "llama-2-7b" => Self { max_position_embeddings: 4096, ..shape(4096, 11_008, 32, 32) },
            "llama-2-13b" => Self { max_position_embeddings: 4096, ..shape(5120, 13_824, 40, 40) },
            "llama-3-8b" => Self {
                vocab_size: 128_256,
                num_key_value_heads: 8,
                rope: Rope { theta: 500_000.0, scaling: RopeScaling::Default },
                max_position_embeddings: 8192,
                bos_token_id: Some(128_000),
                eos_token_ids: vec![128_001],
                ..shape(4096, 14_336, 32, 32)
            },
            "tinyllama-1.1b" => Self { num_key_value_heads: 4, ..shape(2048, 5632, 22, 32) },
            "llama-110m" => Self { tie_word_embeddings: true, ..shape(768, 2048, 12, 12) },
            "llama-15m" => Self { tie_word_embeddings: true, ..shape(288, 768, 6, 6) },
            _ => {
                let known = PRESETS.join(", ");
                return Err(Error::UnknownPreset { name: name.to_string(), known });
            }
        })
    }
}
