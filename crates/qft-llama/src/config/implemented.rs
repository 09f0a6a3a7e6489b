//! What can be read but is not computed yet, in one list: each line goes when the model has its feature.

use super::{AttentionBias, LayerRope, LlamaConfig, NormPlacement};
use crate::Error;
use std::path::Path;

const NOT_YET: &str = "use a model without it; qft does not compute it yet";

/// Refuses, by the key, what the model's code does not compute.
///
/// Errors: [`Error::Config`].
pub(super) fn implemented(config: &LlamaConfig, file: &Path) -> Result<(), Error> {
    let has = |rope: LayerRope| config.layers.iter().any(|layer| layer.rope == rope);
    let numbers = &config.multipliers;
    // Whether it is asked for, the key, what would work, and what is asked for.
    let missing = [
        (config.attention_bias != AttentionBias::None, "attention_bias", "no biases in attention"),
        (config.mlp_bias, "mlp_bias", "false"),
        (config.qk_norm.is_some(), "model_type", "no norms of queries and keys"),
        (config.norms == NormPlacement::After, "model_type", "norms before attention"),
        (has(LayerRope::None), "no_rope_layers", "positions in every layer"),
        (has(LayerRope::Plain), "layer_types", "the same rope in every layer"),
        (numbers.embedding != 1.0, "embedding_multiplier", "1"),
        (numbers.attention.is_some(), "attention_multiplier", "no such key"),
        (numbers.residual != 1.0, "residual_multiplier", "1"),
        (numbers.logits != 1.0, "logits_scaling", "1"),
        (config.rope.rotated.is_some(), "partial_rotary_factor", "1"),
        (config.rope.attention_factor() != 1.0, "rope_scaling", "no attention factor"),
        (config.family.fused(), "model_type", "a family with separate projections"),
    ];
    match missing.into_iter().find(|(asked, ..)| *asked) {
        None => Ok(()),
        Some((_, key, expected)) => Err(Error::Config {
            file: file.to_path_buf(),
            key: key.into(),
            expected: expected.into(),
            got: format!("another value in a {} model", config.family.model_type()),
            remedy: NOT_YET,
        }),
    }
}
