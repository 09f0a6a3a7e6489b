//! Families: what their configurations say, and that nothing of it is lost. Those that the model cannot compute yet
//! are only seen from in here.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod presets;
mod reading;
mod refusals;
mod rope;

use super::{Family, LlamaConfig, read};
use crate::Error;
use serde_json::{Value, json};
use std::path::Path;

/// A configuration of a small model with the fewest keys, and some keys set anew; `"absent"` removes one.
fn text(family: Family, changes: Value) -> String {
    let mut config = json!({
        "model_type": family.model_type(), "vocab_size": 100, "hidden_size": 64,
        "intermediate_size": 172, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4,
    });
    let map = config.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        map.insert(key.clone(), value.clone());
    }
    map.retain(|_, value| value != "absent");
    config.to_string()
}

fn parse(text: &str) -> Result<LlamaConfig, Error> {
    read::parse(Path::new("config.json"), text)
}

fn parsed(family: Family, changes: Value) -> LlamaConfig {
    let text = text(family, changes);
    parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
