//! Bytes of a column that are no text, among the JSON values of a record.
//!
//! JSON has no type for them. They may stand beside what is learned; what is read as text, or shown to a template,
//! must not have them.

use serde_json::{Map, Value};

/// The only key of an object that stands for such bytes. No column has a name like this.
const KEY: &str = "\0bytes";

/// How to mend what is refused.
pub(super) const NOT_TEXT: &str = "is not UTF-8; store it as text, or leave the column out";

/// The value of `bytes`: their text, or what stands for bytes that are none.
pub(super) fn value_of(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.into()),
        Err(_) => no_text(),
    }
}

/// What stands for bytes that are no text.
pub(super) fn no_text() -> Value {
    Value::Object(Map::from_iter([(KEY.to_string(), Value::Null)]))
}

/// Whether a value stands for bytes that are no text.
pub(super) fn is(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.contains_key(KEY))
}

/// Whether a value stands for bytes that are no text, or holds such.
pub(super) fn is_within(value: &Value) -> bool {
    is(value)
        || match value {
            Value::Array(values) => values.iter().any(is_within),
            Value::Object(map) => map.values().any(is_within),
            _ => false,
        }
}
