//! The numbers of a line of `metrics.jsonl`, each by its key.

use serde_json::Value;

/// Hands every number in `line` to `take`, with its key: those of an object within by both keys, as `diagnostics/flip_rate`, and
/// those of a set of held-out data by its name, as `eval/chats/loss`. What is no number is passed over, as are lists and `step`.
pub(super) fn numbers(line: &Value, take: &mut dyn FnMut(&str, f64)) {
    let set = line["set"].as_str();
    each(line, &mut |key, number| match (set, key.strip_prefix("set_")) {
        (Some(set), Some(key)) => take(&format!("eval/{set}/{key}"), number),
        _ => take(key, number),
    });
}

/// Where a value is, or what it is of; a text, even if a file has a number there.
const NOT_NUMBERS: [&str; 4] = ["step", "set", "prompt", "sample"];

fn each(object: &Value, take: &mut dyn FnMut(&str, f64)) {
    let entries = object.as_object().into_iter().flatten();
    for (key, value) in entries.filter(|(key, _)| !NOT_NUMBERS.contains(&key.as_str())) {
        match value {
            Value::Number(number) => {
                if let Some(number) = number.as_f64() {
                    take(key, number);
                }
            }
            Value::Object(_) => {
                each(value, &mut |inner, number| take(&format!("{key}/{inner}"), number))
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_have_the_keys_that_lead_to_them() {
        let line = json!({"step": 3, "loss": 2.5, "compute": "int8", "grad_norm": null, "tokens": 7,
                          "eval/chats": 1.5, "diagnostics": {"landed": 1.0, "deep": {"x": 2}}, "list": [1]});
        let mut found = Vec::new();
        numbers(&line, &mut |key, number| found.push((key.to_owned(), number)));
        let expected = [
            ("loss", 2.5),
            ("tokens", 7.0),
            ("eval/chats", 1.5),
            ("diagnostics/landed", 1.0),
            ("diagnostics/deep/x", 2.0),
        ];
        assert_eq!(found, expected.map(|(key, number)| (key.to_owned(), number)));
        let of_set = json!({"step": 3, "set": "chats", "set_loss": 1.5, "other": 2});
        let mut keys = Vec::new();
        numbers(&of_set, &mut |key, _| keys.push(key.to_owned()));
        assert_eq!(keys, ["eval/chats/loss", "other"]);
        numbers(&json!([1, 2]), &mut |_, _| panic!("no object"));
    }
}
