//! A JSON object of a configuration: its values by type, and errors that name the key.

use crate::Error;
use serde_json::{Map, Value};
use std::path::Path;

pub(super) const CORRUPT: &str = "correct config.json, or restore it from the model's source";
pub(super) const ANOTHER_MODEL: &str =
    "use a model of a family that is supported, without this feature";

/// A JSON object with the place it was found in.
pub(super) struct Object<'a> {
    pub(super) file: &'a Path,
    /// What stands before its keys in messages: empty, or the key of the object and a dot.
    pub(super) prefix: String,
    pub(super) map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The value of `key`; an explicit `null` counts as absent, as in transformers.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there and `null`.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(key, "a text", value))
    }

    pub(super) fn size(&self, key: &str) -> Result<usize, Error> {
        self.optional_size(key)?.ok_or_else(|| self.invalid(key, "a positive integer", "nothing"))
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| self.invalid(key, "a positive integer", value))
    }

    /// A size whose absence means `default`, while `null` means none.
    pub(super) fn size_or(
        &self,
        key: &str,
        default: Option<usize>,
    ) -> Result<Option<usize>, Error> {
        let found = self.optional_size(key)?;
        Ok(if self.is_null(key) { None } else { found.or(default) })
    }

    pub(super) fn number(&self, key: &str) -> Result<f64, Error> {
        self.optional_number(key)?.ok_or_else(|| self.invalid(key, "a number", "nothing"))
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.invalid(key, "a number", value))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(key, "true or false", value))
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().map(Vec::as_slice);
        list.map(Some).ok_or_else(|| self.invalid(key, "a list", value))
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Vec<f32>, Error> {
        let list = self.list(key)?.ok_or_else(|| self.invalid(key, "a list", "nothing"))?;
        let number = |value: &Value| {
            let number = value.as_f64().map(|number| number as f32);
            number.ok_or_else(|| self.invalid(key, "a list of numbers", value))
        };
        list.iter().map(number).collect()
    }

    /// Token ids: one, or a list. Some files write -1 for none.
    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>, Error> {
        let values = match self.get(key) {
            None => return Ok(vec![]),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.invalid(key, "a token id", value))
        };
        values.iter().filter(|value| value.as_i64() != Some(-1)).map(id).collect()
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Object { file: self.file, prefix, map }))
            }
            Some(other) => Err(self.invalid(key, "an object or null", other)),
        }
    }

    pub(super) fn invalid(&self, key: &str, expected: impl ToString, got: impl ToString) -> Error {
        self.error(key, expected, got, CORRUPT)
    }

    pub(super) fn unsupported(
        &self,
        key: &str,
        expected: impl ToString,
        got: impl ToString,
    ) -> Error {
        self.error(key, expected, got, ANOTHER_MODEL)
    }

    pub(super) fn error(
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
