//! The filter `tojson`: Python's `json.dumps`.

use super::args::{Args, integer};
use super::compare;
use super::fault::{Fault, Meter, Outcome};
use super::iterate;
use super::number_text;
use super::value::Value;
use std::cmp::Ordering;

/// A value as JSON, with `ensure_ascii`, `indent`, `separators` and `sort_keys`. What it writes is charged to the fuel:
/// a list that holds itself twice at each level doubles with each.
pub(super) fn dumps(value: &Value, args: &Args, meter: &Meter) -> Outcome<Value> {
    let parameters = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort] = args.of("tojson", parameters)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text.text.to_string()),
        Some(width) => {
            let width = usize::try_from(integer(width, "tojson: indent")?).unwrap_or(0);
            Some(" ".repeat(width.min(MAX_INDENT)))
        }
    };
    let separators = match separators {
        None | Some(Value::None) => {
            ((if indent.is_some() { "," } else { ", " }).to_string(), ": ".to_string())
        }
        Some(pair) => match &iterate::elements(pair, meter)?[..] {
            [Value::Text(item), Value::Text(key)] => (item.text.to_string(), key.text.to_string()),
            _ => return Err(Fault::new("tojson: separators are two texts")),
        },
    };
    let is_true = |value: Option<&Value>| value.is_some_and(Value::is_true);
    let (ascii, sorted) = (is_true(ascii), is_true(sort));
    let mut writer =
        Writer { out: String::new(), charged: 0, indent, separators, ascii, sorted, meter };
    writer.value(value, 0)?;
    Ok(Value::text(writer.out))
}

/// The widest indentation of a level.
const MAX_INDENT: usize = 4096;

struct Writer<'a> {
    out: String,
    /// Bytes of `out` that are paid for.
    charged: usize,
    indent: Option<String>,
    separators: (String, String),
    ascii: bool,
    sorted: bool,
    meter: &'a Meter,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Outcome<()> {
        self.meter.steps(1)?;
        self.meter.bytes(self.out.len() - self.charged)?;
        self.charged = self.out.len();
        match value {
            Value::None => self.out.push_str("null"),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => self.out.push_str(&value.to_string()),
            Value::Float(value) => self.out.push_str(&float(*value)),
            Value::Text(text) => self.string(&text.text),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                self.out.push('[');
                for (i, item) in items.items.iter().enumerate() {
                    self.separate(i, depth + 1);
                    self.value(item, depth + 1)?;
                }
                self.close(items.items.len(), depth, ']');
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries.iter().collect();
                if self.sorted {
                    sort(&mut entries, self.meter)?;
                }
                self.out.push('{');
                for (i, (key, value)) in entries.into_iter().enumerate() {
                    self.separate(i, depth + 1);
                    self.string(&name(key)?);
                    self.out.push_str(&self.separators.1);
                    self.value(value, depth + 1)?;
                }
                self.close(dict.entries.len(), depth, '}');
            }
            other => {
                let kind = other.kind();
                return Err(Fault::new(format!("Object of type {kind} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(&self.separators.0);
        }
        self.new_line(depth);
    }

    fn close(&mut self, items: usize, depth: usize, bracket: char) {
        if items > 0 {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    number_text::float(value).replace("inf", "Infinity")
}

fn sort(entries: &mut [&(Value, Value)], meter: &Meter) -> Outcome<()> {
    let mut fault = None;
    entries.sort_by(|(a, _), (b, _)| match compare::order(a, b, "<", meter) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(wrong) => {
            fault.get_or_insert(wrong);
            Ordering::Equal
        }
    });
    fault.map_or(Ok(()), Err)
}

/// A key as a text.
fn name(key: &Value) -> Outcome<String> {
    Ok(match key {
        Value::Text(text) => text.text.to_string(),
        Value::None => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => float(*value),
        other => {
            return Err(Fault::new(format!(
                "keys must be str, int, float, bool or None, not {}",
                other.kind()
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_as_python_writes_it() {
        let value = Value::from_json(
            &json!({"z": [1, 2.5, null, true], "a": {}, "t": "<é\"\n\u{1}\u{7f}>"}),
        );
        let value = value.unwrap();
        let dump = |options: &[(&str, Value)]| {
            let named = options.iter().map(|(name, value)| ((*name).into(), value.clone()));
            let args = Args { values: Vec::new(), named: named.collect() };
            dumps(&value, &args, &Meter::new(1 << 20)).unwrap().as_text().unwrap().to_string()
        };
        assert_eq!(
            dump(&[]),
            "{\"z\": [1, 2.5, null, true], \"a\": {}, \"t\": \"<é\\\"\\n\\u0001\u{7f}>\"}"
        );
        assert_eq!(
            dump(&[("ensure_ascii", Value::Bool(true)), ("sort_keys", Value::Bool(true))]),
            r#"{"a": {}, "t": "<\u00e9\"\n\u0001\u007f>", "z": [1, 2.5, null, true]}"#
        );
        assert_eq!(
            dump(&[("indent", Value::Int(1))]),
            "{\n \"z\": [\n  1,\n  2.5,\n  null,\n  true\n ],\n \"a\": {},\n \"t\": \"<é\\\"\\n\\u0001\u{7f}>\"\n}"
        );
        // A width that no product of is a number.
        assert!(dump(&[("indent", Value::Int(i128::MAX))]).len() < 50_000);
    }
}
