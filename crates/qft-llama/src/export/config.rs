//! The `config.json` of a written folder.

use super::{WeightType, compressed};
use crate::config::{Family, LlamaConfig};
use crate::error::Error;
use serde_json::{Map, Value};
use std::path::Path;

/// Where multimodal wrappers keep the text model's configuration.
const TEXT: &str = "text_config";

/// Names classes in Python files beside a model, which `trust_remote_code` would load.
pub(super) const CODE: &str = "auto_map";

/// The text: that of `source`, every key kept, or that of `config` where there is none.
///
/// Rotary positions and the type of weights are written in both spellings, that of transformers 5 and the older one: who
/// knows one of them alone takes defaults for the other without a word.
pub(super) fn text(
    source: Option<&Path>,
    config: &LlamaConfig,
    dtype: WeightType,
    int8: bool,
) -> Result<String, Error> {
    let mut map = match source {
        Some(path) => text_model(read(path)?, config.family),
        None => match serde_json::from_str(&config.to_json(dtype.config_name())) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        },
    };
    // Code of the model's own is not copied; transformers has all families that are known here.
    map.remove(CODE);
    for (key, value) in config.rope_keys() {
        map.entry(key).or_insert(value);
    }
    for key in ["dtype", "torch_dtype"] {
        map.insert(key.into(), dtype.config_name().into());
    }
    if int8 {
        map.insert("quantization_config".into(), compressed::settings());
    }
    Ok(format!("{:#}\n", Value::Object(map)))
}

fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| {
        let remedy = "restore the model's folder; it is read again when the result is written";
        Error::io("read the model's configuration", path, remedy, source)
    })?;
    serde_json::from_str(&text).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        expected: "an object with the model's hyper-parameters",
        source,
    })
}

/// The configuration of the language model alone, where that of a multimodal model wraps it: it is all that is written.
fn text_model(mut map: Map<String, Value>, family: Family) -> Map<String, Value> {
    if map.get("model_type").and_then(Value::as_str) == Some(family.model_type()) {
        return map;
    }
    let Some(Value::Object(mut text)) = map.remove(TEXT) else { return map };
    if let Some(tied) = map.remove("tie_word_embeddings") {
        text.entry("tie_word_embeddings").or_insert(tied);
    }
    text.insert("architectures".into(), Value::from(vec![family.architecture()]));
    text.insert("model_type".into(), family.model_type().into());
    text
}
