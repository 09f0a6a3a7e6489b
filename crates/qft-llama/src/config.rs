//! Hyper-parameters of a model: read from a Hugging Face `config.json`, checked, and never silently ignored.

mod defaults;
mod family;
mod layers;
mod multipliers;
mod preset;
mod read;
mod rope;
mod switches;
mod tensors;
#[cfg(test)]
mod tests;
mod validate;
mod write;

pub use family::Family;
pub use layers::{LayerKind, LayerRope};
pub use multipliers::Multipliers;
pub use preset::PRESETS;
pub use rope::{Rope, RopeScaling};
pub use switches::{AttentionBias, NormPlacement, QkNorm};
pub use tensors::{Fused, TensorKind, TensorSpec};

use crate::Error;
use crate::export;
use crate::source::folder;
use std::path::Path;

/// The shape of a model of the LLaMA kind, and the constants that its arithmetic needs.
///
/// Letters used elsewhere: V `vocab_size`, C `hidden_size`, F `intermediate_size`, H `num_attention_heads`,
/// G `num_key_value_heads`, D `head_dim`.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// The family, which decides the names of tensors and keys.
    pub family: Family,
    /// Rows of the embedding, V.
    pub vocab_size: usize,
    /// Width of the residual stream, C.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, F.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// Query heads, H.
    pub num_attention_heads: usize,
    /// Key and value heads, G; H is a multiple of it.
    pub num_key_value_heads: usize,
    /// Size of a head, D. `H * D` may differ from C.
    pub head_dim: usize,
    /// The epsilon inside every RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Begin-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence; the first is the one to write. May be empty.
    pub eos_token_ids: Vec<u32>,
    /// Which projections of attention add a bias.
    pub attention_bias: AttentionBias,
    /// Whether the three projections of the feed-forward layer add a bias.
    pub mlp_bias: bool,
    /// How queries and keys are normed before they are rotated.
    pub qk_norm: Option<QkNorm>,
    /// Where the norms of a block stand.
    pub norms: NormPlacement,
    /// The kind of each layer: `num_hidden_layers` entries.
    pub layers: Vec<LayerKind>,
    /// Factors at four places.
    pub multipliers: Multipliers,
    /// The length of sequences that rotary frequencies are made for, where they depend on it: see [`Rope::inv_freq`]. Not
    /// in files.
    pub sequence: usize,
}

impl LlamaConfig {
    /// Reads `config.json` in a model's folder. An export into it that a crash interrupted is finished first.
    ///
    /// Errors: [`Error::Folder`] for what is no such folder; [`Error::Io`], [`Error::Json`]; [`Error::Config`] for a
    /// value that is missing, invalid or asks for something that is not implemented; [`Error::Files`].
    pub fn from_dir(dir: &Path) -> Result<Self, Error> {
        export::finish_interrupted(dir)?;
        folder::refuse_other_kinds(dir)?;
        let file = dir.join("config.json");
        let text = std::fs::read_to_string(&file).map_err(|source| {
            let remedy = "a model is a Hugging Face folder with config.json in it";
            Error::io("read the model's configuration", &file, remedy, source)
        })?;
        read::parse(&file, &text)
    }

    /// Reads the text of a `config.json`; errors name the file as `config.json`.
    ///
    /// Errors: as [`LlamaConfig::from_dir`].
    pub fn from_json(text: &str) -> Result<Self, Error> {
        read::parse(Path::new("config.json"), text)
    }

    /// Columns of the query projection's output, `H * D`.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Columns of the key and of the value projection's output, `G * D`.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// The same model for sequences of `tokens`.
    #[must_use]
    pub fn for_sequences(self, tokens: usize) -> Self {
        Self { sequence: tokens, ..self }
    }

    /// Rotary frequencies `[rotated / 2]` of [`LayerRope::Scaled`].
    pub fn inv_freq(&self) -> Vec<f32> {
        self.rope.inv_freq(self.head_dim, self.sequence)
    }

    /// Rotary frequencies `[rotated / 2]` of [`LayerRope::Plain`].
    pub fn plain_inv_freq(&self) -> Vec<f32> {
        self.rope.plain_inv_freq(self.head_dim)
    }

    /// How many dimensions of a head are rotated, the first ones.
    pub fn rotated_size(&self) -> usize {
        self.rope.rotated.unwrap_or(self.head_dim)
    }
}
