//! `config.json` into a [`LlamaConfig`], as transformers 5 reads it: every spelling, and the defaults of each family.

mod family;
mod layers;
mod object;
mod refuse;
mod rope;

use super::defaults::Defaults;
use super::validate::MAX_LAYERS;
use super::{AttentionBias, Family, LlamaConfig, Multipliers};
use crate::Error;
use object::Object;
use rope::RopeReader;
use serde_json::{Map, Value};
use std::path::Path;

/// Parses `text`, the contents of `file`.
pub(super) fn parse(file: &Path, text: &str) -> Result<LlamaConfig, Error> {
    let value: Map<String, Value> = serde_json::from_str(text).map_err(|source| Error::Json {
        path: file.to_path_buf(),
        expected: "an object with the model's hyper-parameters",
        source,
    })?;
    let root = Object { file, prefix: String::new(), map: &value };
    let (family, text) = family::family(&root)?;
    refuse::quantized(&root)?;
    let object = text.as_ref().unwrap_or(&root);
    refuse::unsupported(object, family)?;
    let tied = match object.flag("tie_word_embeddings")? {
        Some(tied) => Some(tied),
        None => root.flag("tie_word_embeddings")?,
    };
    let config = model(object, family, tied)?;
    config.validate(file)?;
    Ok(config)
}

fn model(object: &Object<'_>, family: Family, tied: Option<bool>) -> Result<LlamaConfig, Error> {
    let defaults = Defaults::of(family);
    let num_attention_heads = object.size("num_attention_heads")?;
    let key_value_heads = object.size_or("num_key_value_heads", defaults.num_key_value_heads)?;
    let head_dim = head_dim(object, defaults.head_dim, num_attention_heads)?;
    let positions = object.optional_size("max_position_embeddings")?;
    let positions = positions.unwrap_or(defaults.max_position_embeddings);
    let num_hidden_layers = object.size("num_hidden_layers")?;
    let (rope, windowed) = RopeReader { root: object, family, head_dim, positions }.read()?;
    // More are refused when the configuration is checked; there is no need to list them before.
    let listed = num_hidden_layers.min(MAX_LAYERS);
    let eps = object.optional_number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps);
    Ok(LlamaConfig {
        family,
        vocab_size: object.size("vocab_size")?,
        hidden_size: object.size("hidden_size")?,
        intermediate_size: object.size("intermediate_size")?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: key_value_heads.unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: eps as f32,
        rope,
        max_position_embeddings: positions,
        tie_word_embeddings: tied.unwrap_or(defaults.tie_word_embeddings),
        bos_token_id: object.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: object.token_ids("eos_token_id")?,
        attention_bias: attention_bias(object, family)?,
        mlp_bias: family.has_mlp_bias_key() && object.flag("mlp_bias")? == Some(true),
        qk_norm: family.qk_norm(),
        norms: family.norms(),
        layers: layers::layers(object, family, listed, windowed)?,
        multipliers: multipliers(object, family)?,
        sequence: 0,
    })
}

fn head_dim(object: &Object<'_>, default: Option<usize>, heads: usize) -> Result<usize, Error> {
    let hidden_size = object.size("hidden_size")?;
    match object.optional_size("head_dim")?.or(default) {
        Some(size) => Ok(size),
        None if heads > 0 && hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        None => {
            let expected = format!("a multiple of num_attention_heads {heads}");
            Err(object.invalid("hidden_size", expected, hidden_size))
        }
    }
}

fn attention_bias(object: &Object<'_>, family: Family) -> Result<AttentionBias, Error> {
    Ok(match family {
        Family::Qwen2 => AttentionBias::Qkv,
        _ if object.flag("attention_bias")? == Some(true) => AttentionBias::Qkvo,
        _ => AttentionBias::None,
    })
}

/// Granite's four numbers; in Granite, no `attention_multiplier` means 1.
fn multipliers(object: &Object<'_>, family: Family) -> Result<Multipliers, Error> {
    if family != Family::Granite {
        return Ok(Multipliers::default());
    }
    let number = |key: &str| Ok::<_, Error>(object.optional_number(key)?.unwrap_or(1.0) as f32);
    Ok(Multipliers {
        embedding: number("embedding_multiplier")?,
        attention: Some(number("attention_multiplier")?),
        residual: number("residual_multiplier")?,
        logits: number("logits_scaling")?,
    })
}
