//! The kind of each layer: `layer_types`, windows, and layers without positions.

use super::object::Object;
use crate::Error;
use crate::config::defaults::Defaults;
use crate::config::{Family, LayerKind, LayerRope};
use serde_json::Value;

/// From which layer on Qwen has windows, unless it says so.
const QWEN_FULL_LAYERS: usize = 28;

/// The kinds of `count` layers; windowed ones have the positions `windowed`.
pub(super) fn layers(
    object: &Object<'_>,
    family: Family,
    count: usize,
    windowed: LayerRope,
) -> Result<Vec<LayerKind>, Error> {
    let window = window(object, family)?;
    let sliding = sliding(object, family, count)?;
    let roped = roped(object, family, count)?;
    let kind = |layer: usize| {
        let slides = sliding.as_ref().map_or(family != Family::Llama, |sliding| sliding[layer]);
        let rope = match roped.as_ref().is_none_or(|roped| roped[layer]) {
            false => LayerRope::None,
            true if slides => windowed,
            true => LayerRope::Scaled,
        };
        LayerKind { rope, window: window.filter(|_| slides) }
    };
    Ok((0..count).map(kind).collect())
}

/// The size of the windows, of those layers that have one.
fn window(object: &Object<'_>, family: Family) -> Result<Option<usize>, Error> {
    let window = object.size_or("sliding_window", Defaults::of(family).sliding_window)?;
    if window == Some(0) {
        return Err(object.invalid("sliding_window", "a positive integer or null", 0));
    }
    let used = object.flag("use_sliding_window")?.unwrap_or(false);
    match family {
        Family::Mistral | Family::Phi3 | Family::Olmo3 => Ok(window),
        Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => Ok(window.filter(|_| used)),
        Family::Llama | Family::Granite | Family::Olmo2 => {
            if let Some(window) = window {
                let (file, name) = (object.file.display(), family.model_type());
                tracing::warn!(
                    "{file}: sliding_window {window} is not applied: {name} has no windows"
                );
            }
            Ok(None)
        }
    }
}

/// Which layers are windowed where that differs from layer to layer; `None` where it does not.
fn sliding(object: &Object<'_>, family: Family, count: usize) -> Result<Option<Vec<bool>>, Error> {
    let given = types(object, count)?;
    Ok(match family {
        Family::Qwen2 | Family::Qwen3 => {
            let full = object.optional_size("max_window_layers")?.unwrap_or(QWEN_FULL_LAYERS);
            given.or_else(|| Some((0..count).map(|layer| layer >= full).collect()))
        }
        // Where nothing is given, the layers without positions are windowed.
        Family::SmolLm3 => match (given, roped(object, family, count)?) {
            (None, Some(roped)) => Some(roped.into_iter().map(|roped| !roped).collect()),
            (given, _) => given,
        },
        Family::Olmo3 => given.or_else(|| {
            let usual = LayerKind::usual(family, count, Some(1));
            Some(usual.into_iter().map(|kind| kind.window.is_some()).collect())
        }),
        _ => None,
    })
}

/// `layer_types`: whether each is windowed.
fn types(object: &Object<'_>, count: usize) -> Result<Option<Vec<bool>>, Error> {
    const KEY: &str = "layer_types";
    let Some(types) = object.list(KEY)? else { return Ok(None) };
    if types.len() != count {
        let expected = format!("an entry for each of {count} layers");
        return Err(object.invalid(KEY, expected, format!("{} entries", types.len())));
    }
    let sliding = |kind: &Value| match kind.as_str() {
        Some("full_attention" | "attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(object.unsupported(KEY, "full_attention or sliding_attention", kind)),
    };
    types.iter().map(sliding).collect::<Result<_, _>>().map(Some)
}

/// Which layers have positions, where some have not.
fn roped(object: &Object<'_>, family: Family, count: usize) -> Result<Option<Vec<bool>>, Error> {
    const KEY: &str = "no_rope_layers";
    if family != Family::SmolLm3 {
        return Ok(None);
    }
    let Some(flags) = object.list(KEY)? else {
        let interval = object.optional_size("no_rope_layer_interval")?.unwrap_or(4);
        if interval == 0 {
            return Err(object.invalid("no_rope_layer_interval", "a positive integer", 0));
        }
        return Ok(Some((0..count).map(|layer| !(layer + 1).is_multiple_of(interval)).collect()));
    };
    if flags.len() < count {
        let expected = format!("an entry for each of {count} layers");
        return Err(object.invalid(KEY, expected, format!("{} entries", flags.len())));
    }
    let flag = |flag: &Value| match flag.as_u64() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(object.invalid(KEY, "a list of 0 and 1", flag)),
    };
    flags.iter().take(count).map(flag).collect::<Result<_, _>>().map(Some)
}
