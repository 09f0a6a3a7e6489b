//! What a model is called in llama.cpp, what its metadata says, and what of it llama.cpp does not compute.

use super::{Metadata, refuse};
use crate::config::{AttentionBias, Family, LayerRope, LlamaConfig, RopeScaling};
use crate::error::Error;
use qft_files::GgufValue;
use std::path::Path;

/// The layers between two without positions in llama.cpp's smollm3.
const NO_ROPE_STEP: usize = 4;

/// The bounds of YaRN's ramp: these architectures read no others from a file.
const BETAS: (f64, f64) = (32.0, 1.0);

/// How llama.cpp computes a family: the facts of `src/models/NAME.cpp`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Architecture {
    /// The name.
    pub(super) name: &'static str,
    /// Whether rotary positions turn neighbours in a head, where Hugging Face turns its halves.
    pub(super) pairs: bool,
    /// Whether the output head must be there, also where it is the embedding.
    pub(super) needs_head: bool,
    /// Whether a divisor for each frequency is read.
    frequency_factors: bool,
    /// Whether short and long divisors are read.
    longrope: bool,
    /// Whether the sizes of heads are free of the width.
    free_head_size: bool,
    /// The biases of attention that are read.
    attention_bias: AttentionBias,
    /// Whether biases of the feed-forward layer are read.
    mlp_bias: bool,
    /// Whether windows of attention are computed.
    windows: bool,
}

impl Architecture {
    /// What computes `config`.
    ///
    /// Errors: [`Error::Export`] if nothing does; `source` is the folder that it names.
    pub(super) fn of(config: &LlamaConfig, source: &Path) -> Result<Self, Error> {
        let llama = Self {
            name: "llama",
            pairs: true,
            needs_head: false,
            frequency_factors: true,
            longrope: true,
            free_head_size: true,
            attention_bias: AttentionBias::Qkvo,
            mlp_bias: true,
            windows: false,
        };
        let other = Self {
            pairs: false,
            frequency_factors: false,
            longrope: false,
            attention_bias: AttentionBias::Qkv,
            mlp_bias: false,
            ..llama
        };
        let found = match config.family {
            Family::Llama | Family::Mistral => llama,
            Family::Granite => Self { name: "granite", ..llama },
            Family::SmolLm3 => Self { name: "smollm3", pairs: true, ..other },
            Family::Qwen2 => Self { name: "qwen2", free_head_size: false, ..other },
            Family::Qwen3 => Self { name: "qwen3", ..other },
            Family::Phi3 => Self { name: "phi3", longrope: true, free_head_size: false, ..other },
            Family::Olmo2 | Family::Olmo3 => Self {
                name: "olmo2",
                free_head_size: false,
                needs_head: true,
                windows: true,
                ..other
            },
        };
        match found.lacks(config) {
            None => Ok(found),
            Some(what) => {
                Err(refuse(source, format!("{what}, which llama.cpp's {} lacks", found.name)))
            }
        }
    }

    /// What of `config` it does not compute.
    fn lacks(&self, config: &LlamaConfig) -> Option<String> {
        let rank = |bias| match bias {
            AttentionBias::None => 0,
            AttentionBias::Qkv => 1,
            AttentionBias::Qkvo => 2,
        };
        if rank(config.attention_bias) > rank(self.attention_bias) {
            return Some("the output of attention has a bias (attention_bias)".into());
        }
        if config.mlp_bias && !self.mlp_bias {
            return Some("the feed-forward layer has biases (mlp_bias)".into());
        }
        if config.query_size() != config.hidden_size && !self.free_head_size {
            let (size, width) = (config.query_size(), config.hidden_size);
            return Some(format!(
                "its heads have {size} dimensions together, and its width is {width}"
            ));
        }
        if config.rope.rotated.is_some_and(|rotated| rotated != config.head_dim)
            && self.name != "phi3"
        {
            return Some("a part of each head is rotated (partial_rotary_factor)".into());
        }
        let roped = |layer: usize| match self.name {
            "smollm3" => !(layer + 1).is_multiple_of(NO_ROPE_STEP),
            _ => true,
        };
        let layers = || config.layers.iter().enumerate();
        if let Some((layer, _)) =
            layers().find(|&(layer, kind)| (kind.rope != LayerRope::None) != roped(layer))
        {
            return Some(format!("layer {layer} has other positions (no_rope_layers)"));
        }
        let plain = |kind: &crate::config::LayerKind| kind.rope == LayerRope::Plain;
        if layers().any(|(_, kind)| plain(kind) && !(self.windows && kind.window.is_some())) {
            return Some("a layer without a window has a rope of its own".into());
        }
        match &config.rope.scaling {
            RopeScaling::Llama3 { .. } if !self.frequency_factors => {
                Some("its rope is scaled as in Llama 3 (rope_type llama3)".into())
            }
            RopeScaling::LongRope { .. } if !self.longrope => {
                Some("its rope has short and long factors (rope_type longrope)".into())
            }
            RopeScaling::Yarn { truncate: false, .. } => {
                Some("its rope has a ramp between whole indices (truncate false)".into())
            }
            RopeScaling::Yarn { beta_fast, beta_slow, .. } if (*beta_fast, *beta_slow) != BETAS => {
                Some(format!(
                    "its rope has a ramp from beta_fast {beta_fast} to beta_slow {beta_slow}, not from 32 to 1"
                ))
            }
            _ => None,
        }
    }

    /// The longest text that llama.cpp computes as transformers does: where it ignores windows, the shortest of them.
    fn context(&self, config: &LlamaConfig) -> usize {
        let positions = match config.rope.scaling {
            RopeScaling::Dynamic { max_position_embeddings: unscaled, .. } => {
                config.max_position_embeddings.min(unscaled)
            }
            _ => config.max_position_embeddings,
        };
        let window = config.shortest_window().filter(|_| !self.windows);
        window.map_or(positions, |window| window.min(positions))
    }

    /// The hyper-parameters.
    pub(super) fn metadata(&self, config: &LlamaConfig, metadata: &mut Metadata) {
        let name = self.name;
        let mut add = |key: &str, value: GgufValue| metadata.add(format!("{name}.{key}"), value);
        let size = |value: usize| GgufValue::U32(value as u32);
        add("context_length", size(self.context(config)));
        add("embedding_length", size(config.hidden_size));
        add("block_count", size(config.num_hidden_layers));
        add("feed_forward_length", size(config.intermediate_size));
        add("attention.head_count", size(config.num_attention_heads));
        add("attention.head_count_kv", size(config.num_key_value_heads));
        add("attention.key_length", size(config.head_dim));
        add("attention.value_length", size(config.head_dim));
        add("attention.layer_norm_rms_epsilon", GgufValue::F32(config.rms_norm_eps));
        add("vocab_size", size(config.vocab_size));
        if let Some(window) = config.shortest_window().filter(|_| self.windows) {
            let windowed = config.layers.iter().map(|layer| layer.window.is_some()).collect();
            add("attention.sliding_window", size(window));
            add("attention.sliding_window_pattern", GgufValue::Bools(windowed));
        }
        if config.family == Family::Granite {
            let numbers = &config.multipliers;
            add("attention.scale", GgufValue::F32(numbers.attention.unwrap_or(1.0)));
            add("embedding_scale", GgufValue::F32(numbers.embedding));
            add("residual_scale", GgufValue::F32(numbers.residual));
            add("logit_scale", GgufValue::F32(numbers.logits));
        }
    }
}
