//! Messages as `transformers` hands them to a template.

use super::value;
use serde_json::{Map, Value};

/// Names under which a message's reasoning is passed; templates read the first, or the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Without keys that hold nothing, which many templates take for something, and with reasoning under the names that
/// templates read.
pub(super) fn normalized(message: &Value) -> minijinja::Value {
    let Value::Object(message) = message else {
        return value::from_json(message);
    };
    let kept = message.iter().filter(|(_, value)| !value.is_null());
    let kept: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    let reasoning = REASONING.iter().find_map(|&key| kept.get(key)).cloned();
    let Some(reasoning) = reasoning else {
        return value::from_map(&kept);
    };
    let mut aliased = Map::new();
    aliased.insert("thinking".into(), reasoning.clone());
    aliased.extend(kept);
    aliased.insert("reasoning_content".into(), reasoning);
    value::from_map(&aliased)
}
