//! `config.json` into a [`LlamaConfig`]: classic style and that of transformers 5.

use super::{LlamaConfig, Rope, RopeScaling};
use crate::Error;
use serde_json::{Map, Value};
use std::path::Path;

const CORRUPT: &str = "correct config.json, or restore it from the model's source";
const ANOTHER_MODEL: &str = "use a model of the LLaMA architecture without this feature";

/// Parses `text`, the contents of `file`.
pub(super) fn parse(file: &Path, text: &str) -> Result<LlamaConfig, Error> {
    let value: Map<String, Value> = serde_json::from_str(text).map_err(|source| Error::Json {
        path: file.to_path_buf(),
        expected: "an object with the model's hyper-parameters",
        source,
    })?;
    let root = Object { file, prefix: "", map: &value };
    refuse_unknown_architecture(&root)?;
    refuse_unsupported_features(&root)?;

    let hidden_size = root.size("hidden_size")?;
    let num_attention_heads = root.size("num_attention_heads")?;
    let head_dim = match root.optional_size("head_dim")? {
        Some(size) => size,
        None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
            hidden_size / num_attention_heads
        }
        None => {
            let expected = format!("a multiple of num_attention_heads {num_attention_heads}");
            return Err(root.invalid("hidden_size", expected, hidden_size));
        }
    };
    let max_position_embeddings = root.size("max_position_embeddings")?;
    let config = LlamaConfig {
        vocab_size: root.size("vocab_size")?,
        hidden_size,
        intermediate_size: root.size("intermediate_size")?,
        num_hidden_layers: root.size("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: root
            .optional_size("num_key_value_heads")?
            .unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: root.number("rms_norm_eps")? as f32,
        rope: rope(&root)?,
        max_position_embeddings,
        tie_word_embeddings: root.flag("tie_word_embeddings")?,
        bos_token_id: root.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: root.token_ids("eos_token_id")?,
    };
    config.validate(file)?;
    Ok(config)
}

fn refuse_unknown_architecture(root: &Object<'_>) -> Result<(), Error> {
    let names = match root.get("architectures") {
        None => vec![],
        Some(Value::Array(names)) => names.iter().collect(),
        Some(other) => vec![other],
    };
    for name in &names {
        if !matches!(name.as_str(), Some("LlamaForCausalLM" | "MistralForCausalLM")) {
            return Err(root.unsupported("architectures", "LlamaForCausalLM", name));
        }
    }
    match root.get("model_type") {
        Some(name) if !matches!(name.as_str(), Some("llama" | "mistral")) => {
            Err(root.unsupported("model_type", "llama", name))
        }
        None if names.is_empty() => Err(root.unsupported("model_type", "llama", "nothing")),
        _ => Ok(()),
    }
}

fn refuse_unsupported_features(root: &Object<'_>) -> Result<(), Error> {
    if let Some(name) = root.get("hidden_act").filter(|name| name.as_str() != Some("silu")) {
        return Err(root.unsupported("hidden_act", "silu", name));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if root.flag(key)? {
            return Err(root.unsupported(key, "false", true));
        }
    }
    if let Some(ranks) = root.optional_size("pretraining_tp")?.filter(|&ranks| ranks > 1) {
        return Err(root.unsupported("pretraining_tp", "1", ranks));
    }
    if root.get("quantization_config").is_some() {
        let (expected, remedy) = ("no such key", "use the model's unquantized weights");
        return Err(root.error("quantization_config", expected, "a quantized model", remedy));
    }
    let dropout = root.optional_number("attention_dropout")?.unwrap_or(0.0);
    if dropout != 0.0 {
        tracing::warn!("{}: attention_dropout {dropout} is not applied", root.file.display());
    }
    refuse_sliding_window(root)
}

/// A window as long as the longest sequence restricts nothing, and some configurations carry one unused.
fn refuse_sliding_window(root: &Object<'_>) -> Result<(), Error> {
    let switched_off = matches!(root.get("use_sliding_window"), Some(Value::Bool(false)));
    let longest = root.size("max_position_embeddings")?;
    match root.optional_size("sliding_window")? {
        Some(window) if window < longest && !switched_off => {
            return Err(root.unsupported("sliding_window", "null", window));
        }
        _ => {}
    }
    if let Some(Value::Array(kinds)) = root.get("layer_types")
        && let Some(kind) = kinds.iter().find(|kind| kind.as_str() != Some("full_attention"))
    {
        return Err(root.unsupported("layer_types", "full_attention only", kind));
    }
    Ok(())
}

/// `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`.
fn rope(root: &Object<'_>) -> Result<Rope, Error> {
    let parameters = match root.object("rope_parameters", "rope_parameters.")? {
        Some(object) => Some(object),
        None => root.object("rope_scaling", "rope_scaling.")?,
    };
    let inner_theta = parameters.as_ref().map(|object| object.optional_number("rope_theta"));
    let theta = match inner_theta.transpose()?.flatten() {
        Some(theta) => theta,
        None => root.optional_number("rope_theta")?.unwrap_or(10_000.0),
    };
    for object in [Some(root), parameters.as_ref()].into_iter().flatten() {
        let part = object.optional_number("partial_rotary_factor")?.unwrap_or(1.0);
        if part != 1.0 {
            return Err(object.unsupported("partial_rotary_factor", "1.0", part));
        }
    }
    let scaling = match parameters {
        None => RopeScaling::Default,
        Some(object) => scaling(&object)?,
    };
    Ok(Rope { theta, scaling })
}

fn scaling(object: &Object<'_>) -> Result<RopeScaling, Error> {
    let key = if object.get("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = match object.get(key) {
        // Only the base may be given.
        None if object.map.keys().all(|key| key == "rope_theta") => {
            return Ok(RopeScaling::Default);
        }
        None => return Err(object.invalid("rope_type", "a name", "nothing")),
        Some(kind) => kind,
    };
    match kind.as_str() {
        Some("default") => Ok(RopeScaling::Default),
        Some("linear") => Ok(RopeScaling::Linear { factor: object.number("factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: object.number("factor")?,
            low_freq_factor: object.number("low_freq_factor")?,
            high_freq_factor: object.number("high_freq_factor")?,
            original_max_position_embeddings: object.size("original_max_position_embeddings")?,
        }),
        _ => Err(object.unsupported(key, "default, linear or llama3", kind)),
    }
}

/// A JSON object with the place it was found in.
struct Object<'a> {
    file: &'a Path,
    prefix: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The value of `key`; an explicit `null` counts as absent, as in transformers.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str) -> Result<usize, Error> {
        self.optional_size(key)?.ok_or_else(|| self.invalid(key, "a positive integer", "nothing"))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| self.invalid(key, "a positive integer", value))
    }

    fn number(&self, key: &str) -> Result<f64, Error> {
        self.optional_number(key)?.ok_or_else(|| self.invalid(key, "a number", "nothing"))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.invalid(key, "a number", value))
    }

    fn flag(&self, key: &str) -> Result<bool, Error> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.invalid(key, "true or false", value))
    }

    fn token_ids(&self, key: &str) -> Result<Vec<u32>, Error> {
        let values = match self.get(key) {
            None => return Ok(vec![]),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.invalid(key, "a token id", value))
        };
        values.iter().map(id).collect()
    }

    fn object(&self, key: &str, prefix: &'static str) -> Result<Option<Object<'a>>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Object { file: self.file, prefix, map })),
            Some(other) => Err(self.invalid(key, "an object or null", other)),
        }
    }

    fn invalid(&self, key: &str, expected: impl ToString, got: impl ToString) -> Error {
        self.error(key, expected, got, CORRUPT)
    }

    fn unsupported(&self, key: &str, expected: impl ToString, got: impl ToString) -> Error {
        self.error(key, expected, got, ANOTHER_MODEL)
    }

    fn error(
        &self,
        key: &str,
        expected: impl ToString,
        got: impl ToString,
        remedy: &'static str,
    ) -> Error {
        let (file, key) = (self.file.to_path_buf(), format!("{}{key}", self.prefix));
        Error::Config { file, key, expected: expected.to_string(), got: got.to_string(), remedy }
    }
}
