//! The families of models that are read, and what is the same in every model of a family.

use super::{NormPlacement, QkNorm};

/// A family of models: those that share a `model_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// LLaMA, and what is stored as one: SmolLM2, TinyLlama, R1-Distill-Llama.
    Llama,
    /// Mistral: LLaMA with a window in some versions.
    Mistral,
    /// Qwen 2 and 2.5: biases at queries, keys and values.
    Qwen2,
    /// Qwen 3: queries and keys are normed head by head.
    Qwen3,
    /// SmolLM3: every fourth layer has no positions.
    SmolLm3,
    /// Granite 3: four multipliers.
    Granite,
    /// Phi 3 and 4: fused projections, a part of each head is rotated.
    Phi3,
    /// OLMo 2: norms behind the branches, queries and keys normed over their width.
    Olmo2,
    /// OLMo 3: OLMo 2 with windows in three of four layers.
    Olmo3,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 9] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::SmolLm3,
        Self::Granite,
        Self::Phi3,
        Self::Olmo2,
        Self::Olmo3,
    ];

    /// The value of `model_type` in `config.json`.
    pub const fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::SmolLm3 => "smollm3",
            Self::Granite => "granite",
            Self::Phi3 => "phi3",
            Self::Olmo2 => "olmo2",
            Self::Olmo3 => "olmo3",
        }
    }

    /// The entry of `architectures` in `config.json`.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
            Self::Granite => "GraniteForCausalLM",
            Self::Phi3 => "Phi3ForCausalLM",
            Self::Olmo2 => "Olmo2ForCausalLM",
            Self::Olmo3 => "Olmo3ForCausalLM",
        }
    }

    /// Whether files hold `qkv_proj` and `gate_up_proj`, where other families have a matrix for each part.
    pub const fn fused(self) -> bool {
        matches!(self, Self::Phi3)
    }

    /// What is normed between the projections and the rotation.
    pub const fn qk_norm(self) -> Option<QkNorm> {
        match self {
            Self::Qwen3 => Some(QkNorm::Head),
            Self::Olmo2 | Self::Olmo3 => Some(QkNorm::Width),
            _ => None,
        }
    }

    /// Where the norms of a block stand.
    pub const fn norms(self) -> NormPlacement {
        match self {
            Self::Olmo2 | Self::Olmo3 => NormPlacement::After,
            _ => NormPlacement::Before,
        }
    }

    /// Whether `attention_bias` is a key of the family; elsewhere the family decides.
    pub(super) const fn has_attention_bias_key(self) -> bool {
        !matches!(self, Self::Mistral | Self::Qwen2 | Self::Phi3)
    }

    /// Whether `mlp_bias` is a key of the family; elsewhere there is none.
    pub(super) const fn has_mlp_bias_key(self) -> bool {
        matches!(self, Self::Llama | Self::SmolLm3 | Self::Granite)
    }

    /// The family that a `model_type` names.
    pub(super) fn of_model_type(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.model_type() == name)
    }

    /// The family that an entry of `architectures` names.
    pub(super) fn of_architecture(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.architecture() == name)
    }

    /// All names of `model_type`, for messages.
    pub(super) fn known() -> String {
        Self::ALL.map(Self::model_type).join(", ")
    }
}
