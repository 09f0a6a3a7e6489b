//! Shapes of well-known models, for planning without a folder.

mod table;

use super::rope::longrope_attention_factor;
use super::{AttentionBias, Family, LayerKind, LlamaConfig, Multipliers, Rope, RopeScaling};
use crate::Error;
use table::{Row, Scaling, TABLE};

/// The names that [`LlamaConfig::preset`] knows.
pub const PRESETS: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut row = 0;
    while row < TABLE.len() {
        names[row] = TABLE[row].name;
        row += 1;
    }
    names
};

impl LlamaConfig {
    /// The shape of a well-known model, by name; see [`PRESETS`].
    ///
    /// Errors: [`Error::UnknownPreset`].
    pub fn preset(name: &str) -> Result<Self, Error> {
        match TABLE.iter().find(|row| row.name == name) {
            Some(row) => Ok(row.config()),
            None => {
                let known = PRESETS.join(", ");
                Err(Error::UnknownPreset { name: name.to_string(), known })
            }
        }
    }
}

impl Row {
    fn config(&self) -> LlamaConfig {
        let family = self.family;
        let head_dim = if self.head_dim == 0 { self.hidden / self.heads } else { self.head_dim };
        LlamaConfig {
            family,
            vocab_size: self.vocab,
            hidden_size: self.hidden,
            intermediate_size: self.ffn,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: if self.groups == 0 { self.heads } else { self.groups },
            head_dim,
            rms_norm_eps: self.eps,
            rope: Rope {
                theta: self.theta,
                rotated: (self.rotated != 0).then_some(self.rotated),
                scaling: self.scaling.with(self.positions),
            },
            max_position_embeddings: self.positions,
            tie_word_embeddings: self.tied,
            bos_token_id: self.bos,
            eos_token_ids: vec![self.eos],
            attention_bias: match family {
                Family::Qwen2 => AttentionBias::Qkv,
                _ => AttentionBias::None,
            },
            mlp_bias: false,
            qk_norm: family.qk_norm(),
            norms: family.norms(),
            layers: LayerKind::usual(family, self.layers, self.window),
            sequence: 0,
            multipliers: match self.granite {
                None => Multipliers::default(),
                Some([embedding, attention, residual, logits]) => {
                    Multipliers { embedding, attention: Some(attention), residual, logits }
                }
            },
        }
    }
}

impl Scaling {
    fn with(&self, positions: usize) -> RopeScaling {
        match *self {
            Self::None => RopeScaling::Default,
            Self::Llama3 { factor } => RopeScaling::Llama3 {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            },
            Self::Yarn { factor, attention_factor } => RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: 8192,
                beta_fast: 32.0,
                beta_slow: 1.0,
                truncate: true,
                attention_factor,
            },
            Self::LongRope { factors, original } => RopeScaling::LongRope {
                short_factor: vec![1.0; factors.len()],
                long_factor: factors.to_vec(),
                original_max_position_embeddings: original,
                attention_factor: longrope_attention_factor(
                    positions as f64 / original as f64,
                    original,
                ) as f32,
            },
        }
    }
}
