//! Messages as `transformers` hands them to a template.

use super::jinja::{Fault, Value as Seen};
use serde_json::{Map, Value};

/// Names under which a message's reasoning is passed; templates read the first, or the second.
pub(super) const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Without keys that hold nothing, which many templates take for something, and with reasoning under the names that
/// templates read.
///
/// Errors: values are nested too deeply.
pub(super) fn normalized(message: &Value) -> Result<Seen, Fault> {
    let Value::Object(message) = message else {
        return Seen::from_json(message);
    };
    let kept = message.iter().filter(|(_, value)| !value.is_null());
    let kept: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    let reasoning = REASONING.iter().find_map(|&key| kept.get(key)).cloned();
    let Some(reasoning) = reasoning else {
        return Seen::from_map(&kept);
    };
    let mut aliased = Map::new();
    aliased.insert("thinking".into(), reasoning.clone());
    aliased.extend(kept);
    aliased.insert("reasoning_content".into(), reasoning);
    Seen::from_map(&aliased)
}

/// A message of this role.
///
/// Errors: none that a text should cause.
pub(super) fn said(role: &str, content: &str) -> Result<Seen, Fault> {
    let entry = |(key, value): (&str, &str)| (Seen::text(key), Seen::text(value));
    Seen::dict([("role", role), ("content", content)].map(entry).to_vec())
}
