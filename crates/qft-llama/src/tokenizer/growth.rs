//! How much longer a text may get in a tokenizer's rules, which replace one text by another, one after the other.

use serde::Deserialize;
use serde_json::Value;

/// More than this is no tokenizer's need: those in use write three bytes for one.
const MOST: u64 = 1000;

/// The parts of a `tokenizer.json` that can make a text longer. Reading them reads the whole file as JSON.
#[derive(Deserialize)]
pub(super) struct Rules {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    decoder: Value,
}

impl Rules {
    /// Refuses rules that make a text longer again and again: ten of them that write ten characters for one fill
    /// the memory of any machine.
    ///
    /// Errors: which rules, and what they do.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, rules) in [("normalizer", &self.normalizer), ("decoder", &self.decoder)] {
            let times = growth(rules);
            if times > MOST {
                return Err(format!(
                    "its {name} makes a text up to {times} times longer, expected at most {MOST}"
                ));
            }
        }
        Ok(())
    }
}

/// How many times longer a text may be after a rule. JSON is nested a hundred levels at most.
fn growth(rule: &Value) -> u64 {
    let inner = ["normalizers", "decoders"].into_iter().filter_map(|key| rule.get(key)?.as_array());
    let product = inner.flatten().map(growth).fold(1, u64::saturating_mul);
    // An empty pattern is found before each character, and at the end.
    let written = rule.get("content").and_then(Value::as_str).filter(|_| rule["type"] == "Replace");
    product.saturating_mul(written.map_or(1, |content| 1 + content.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_in_use_pass_and_a_chain_of_them_does_not() {
        let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": " "}, "content": content});
        let rules = |count: usize, content: &str| {
            let list = vec![replace(content); count];
            let chain = json!({"type": "Sequence", "normalizers": list, "decoders": list});
            [
                json!({"normalizer": chain, "decoder": null, "model": {}}),
                json!({"decoder": {"type": "Sequence", "decoders": [chain]}}),
            ]
        };
        let check = |value: Value| Rules::deserialize(value).unwrap().check();
        for value in rules(2, "\u{2581}").into_iter().chain(rules(40, "")).chain([json!({})]) {
            check(value).unwrap();
        }
        for value in rules(12, "aaaaaaaaaa").into_iter().chain(rules(100, "aaaa")) {
            let told = check(value).unwrap_err();
            assert!(told.contains("times longer"), "{told}");
        }
    }
}
