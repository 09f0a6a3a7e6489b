//! JSON values for templates, with the order of their fields.

use minijinja::Value;
use minijinja::value::{Enumerator, Object};
use std::collections::HashMap;
use std::sync::Arc;

/// Objects with more fields than this have an index.
const FEW: usize = 16;

/// An object whose fields come in the order in which they were written.
#[derive(Debug)]
struct Fields {
    fields: Vec<(String, Value)>,
    /// Where each field is; empty for few. Without it, a large object would be searched for each of its fields.
    index: HashMap<String, usize>,
}

impl Fields {
    fn new(fields: Vec<(String, Value)>) -> Self {
        let names = fields.iter().map(|(name, _)| name.clone()).zip(0..);
        let index = if fields.len() > FEW { names.collect() } else { HashMap::new() };
        Self { fields, index }
    }

    fn place(&self, key: &str) -> Option<usize> {
        if self.fields.len() > FEW {
            return self.index.get(key).copied();
        }
        self.fields.iter().position(|(name, _)| name == key)
    }
}

impl Object for Fields {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(self.fields[self.place(key.as_str()?)?].1.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.fields.iter().map(|(name, _)| Value::from(name.as_str()));
        Enumerator::Values(names.collect())
    }
}

/// A JSON value as templates see it.
pub(super) fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (_, Some(value)) => Value::from(value),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => Value::from(list.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(map) => {
            let fields = map.iter().map(|(name, value)| (name.clone(), from_json(value)));
            Value::from_object(Fields::new(fields.collect()))
        }
    }
}
