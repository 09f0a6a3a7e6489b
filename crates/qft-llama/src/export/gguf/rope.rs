//! Rotary positions: metadata, and factors that are tensors.

use super::Metadata;
use super::architecture::Architecture;
use crate::config::{LlamaConfig, RopeScaling};
use qft_files::GgufValue;

/// Adds the base, the rescaling, and how many dimensions of a head are rotated.
pub(super) fn metadata(architecture: Architecture, config: &LlamaConfig, metadata: &mut Metadata) {
    let name = architecture.name;
    let mut add = |key: &str, value: GgufValue| metadata.add(format!("{name}.rope.{key}"), value);
    let size = |value: usize| GgufValue::U32(value as u32);
    add("dimension_count", size(config.rotated_size()));
    add("freq_base", GgufValue::F32(config.rope.theta as f32));
    let mut scaling = |kind: &str| add("scaling.type", GgufValue::Text(kind.into()));
    match &config.rope.scaling {
        // Within the context that is written, dynamic scaling does nothing; that of Llama 3 is a tensor.
        RopeScaling::Default | RopeScaling::Dynamic { .. } | RopeScaling::Llama3 { .. } => {}
        RopeScaling::Linear { factor } => {
            scaling("linear");
            add("scaling.factor", GgufValue::F32(*factor as f32));
        }
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: context,
            beta_fast,
            beta_slow,
            attention_factor,
            ..
        } => {
            scaling("yarn");
            // llama.cpp multiplies sines and cosines by this itself.
            let own = if *factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
            let rest = f64::from(*attention_factor) / own;
            add("scaling.factor", GgufValue::F32(*factor as f32));
            add("scaling.original_context_length", size(*context));
            add("scaling.yarn_beta_fast", GgufValue::F32(*beta_fast as f32));
            add("scaling.yarn_beta_slow", GgufValue::F32(*beta_slow as f32));
            add("scaling.attn_factor", GgufValue::F32(rest as f32));
        }
        RopeScaling::LongRope {
            original_max_position_embeddings: context,
            attention_factor,
            ..
        } => {
            scaling("longrope");
            add("scaling.original_context_length", size(*context));
            add("scaling.attn_factor", GgufValue::F32(*attention_factor));
        }
    }
}

/// Tensors of factors `[rotated / 2]`: what each frequency is divided by.
pub(super) fn tensors(config: &LlamaConfig) -> Vec<(&'static str, Vec<f32>)> {
    match &config.rope.scaling {
        RopeScaling::Llama3 { .. } => {
            let (plain, scaled) = (config.plain_inv_freq(), config.inv_freq());
            let divisors = plain.iter().zip(scaled).map(|(plain, scaled)| plain / scaled);
            vec![("rope_freqs.weight", divisors.collect())]
        }
        RopeScaling::LongRope { short_factor, long_factor, .. } => vec![
            ("rope_factors_long.weight", long_factor.clone()),
            ("rope_factors_short.weight", short_factor.clone()),
        ],
        _ => Vec::new(),
    }
}
