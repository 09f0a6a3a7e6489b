//! What a key means where `config.json` leaves it out: the defaults of transformers 5.24, for each family.

use super::Family;

/// Values of keys that are absent.
pub(super) struct Defaults {
    pub(super) rms_norm_eps: f64,
    pub(super) rope_theta: f64,
    pub(super) max_position_embeddings: usize,
    pub(super) tie_word_embeddings: bool,
    /// `None`: `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    /// `None`: as many as query heads.
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) sliding_window: Option<usize>,
    /// `None`: what stands beside the factors, or the model's positions.
    pub(super) original_max_position_embeddings: Option<usize>,
}

impl Defaults {
    pub(super) const fn of(family: Family) -> Self {
        let llama = Self {
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            max_position_embeddings: 2048,
            tie_word_embeddings: false,
            head_dim: None,
            num_key_value_heads: None,
            sliding_window: None,
            original_max_position_embeddings: None,
        };
        match family {
            Family::Llama | Family::Granite => llama,
            Family::Mistral => Self {
                max_position_embeddings: 131_072,
                num_key_value_heads: Some(8),
                sliding_window: Some(4096),
                ..llama
            },
            Family::Qwen2 => Self {
                max_position_embeddings: 32_768,
                num_key_value_heads: Some(32),
                sliding_window: Some(4096),
                ..llama
            },
            Family::Qwen3 => Self {
                max_position_embeddings: 32_768,
                num_key_value_heads: Some(32),
                sliding_window: Some(4096),
                head_dim: Some(128),
                ..llama
            },
            Family::SmolLm3 => Self {
                rope_theta: 2e6,
                max_position_embeddings: 32_768,
                num_key_value_heads: Some(4),
                tie_word_embeddings: true,
                ..llama
            },
            Family::Phi3 => Self {
                rms_norm_eps: 1e-5,
                max_position_embeddings: 4096,
                original_max_position_embeddings: Some(4096),
                ..llama
            },
            Family::Olmo2 => Self { rms_norm_eps: 1e-5, ..llama },
            Family::Olmo3 => Self {
                rms_norm_eps: 1e-5,
                rope_theta: 500_000.0,
                sliding_window: Some(4096),
                ..llama
            },
        }
    }
}
