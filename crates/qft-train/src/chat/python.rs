//! What `transformers` adds to Jinja for chat templates.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// Ends the rendering with a message of the template's author.
pub(super) fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
}

/// The filter `tojson`: Python's `json.dumps`, with `indent`, `ensure_ascii`, `sort_keys` and `separators`. What it
/// writes is charged to the fuel of the rendering: a list that holds itself twice at each level doubles with each.
pub(super) fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "tojson: separators are two texts",
            ));
        }
        None => ((if indent.is_some() { "," } else { ", " }).to_string(), ": ".to_string()),
    };
    let mut writer = JsonWriter {
        state,
        out: String::new(),
        charged: 0,
        indent,
        separators,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(Value::from_safe_string(writer.out))
}

/// Values nested deeper than this are refused.
const MAX_DEPTH: usize = 128;

/// Bytes of JSON for one fuel, as in the engine's own filter.
const BYTES_PER_FUEL: usize = 4;

struct JsonWriter<'a> {
    state: &'a State<'a, 'a>,
    out: String,
    /// Bytes of `out` that are paid for.
    charged: usize,
    indent: Option<usize>,
    separators: (String, String),
    ascii: bool,
    sorted: bool,
}

impl JsonWriter<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        self.state.consume_fuel(1 + ((self.out.len() - self.charged) / BYTES_PER_FUEL) as u64)?;
        self.charged = self.out.len();
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut count = 0;
                // One by one: `[0] * n` is a list that costs its template nothing.
                for item in value.try_iter()? {
                    self.separate(count, depth + 1);
                    self.value(&item, depth + 1)?;
                    count += 1;
                }
                self.close(count, depth, ']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.out.push('{');
                for (i, key) in keys.iter().enumerate() {
                    self.separate(i, depth + 1);
                    self.string(&key.to_string());
                    self.out.push_str(&self.separators.1);
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.close(keys.len(), depth, '}');
            }
            kind => {
                let message = format!("tojson: {kind} is not a JSON value");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
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
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth).min(4096)));
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
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
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

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// `strftime` in UTC of `seconds` since 1970, for the codes that a date or a time of day needs; others stay as they
/// are.
pub(super) fn strftime(seconds: u64, format: &str) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{:02}", second % 60)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{:02}", second % 60)),
            Some('%') | None => out.push('%'),
            Some(other) => out.extend(['%', other]),
        }
    }
    out
}

/// Year, month and day of a day since 1970, by whole years and months.
fn civil(mut days: u64) -> (u64, u64, u64) {
    // 400 years of the calendar repeat.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::super::value::from_json;
    use super::*;
    use serde_json::json;

    #[test]
    fn json_as_python_writes_it() {
        let value = from_json(&json!({"z": [1, 2.5, null, true], "a": {}, "t": "<é\"\n\u{1}>"}));
        let env = minijinja::Environment::new();
        let state = env.empty_state();
        let dump = |options: &[(&str, Value)]| {
            to_json(&state, &value, options.iter().map(|(k, v)| (*k, v.clone())).collect())
                .unwrap()
                .to_string()
        };
        assert_eq!(dump(&[]), r#"{"z": [1, 2.5, null, true], "a": {}, "t": "<é\"\n\u0001>"}"#);
        assert_eq!(
            dump(&[("ensure_ascii", true.into()), ("sort_keys", true.into())]),
            r#"{"a": {}, "t": "<\u00e9\"\n\u0001>", "z": [1, 2.5, null, true]}"#
        );
        assert_eq!(
            dump(&[("indent", 1.into())]),
            "{\n \"z\": [\n  1,\n  2.5,\n  null,\n  true\n ],\n \"a\": {},\n \"t\": \"<é\\\"\\n\\u0001>\"\n}"
        );
        // A width that no product of is a number.
        assert!(dump(&[("indent", u64::MAX.into())]).len() < 50_000);
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "Thu 01 Jan 1970 00:00:00 AM"),
            (super::super::TRAINING_DATE, "Fri 26 Jul 2024 00:00:00 AM"),
            (951_827_696, "Tue 29 Feb 2000 12:34:56 PM"),
            (4_107_542_399, "Sun 28 Feb 2100 23:59:59 PM"),
        ] {
            assert_eq!(strftime(seconds, "%a %d %b %Y %H:%M:%S %p"), text);
        }
        assert_eq!(strftime(0, "%Q%%"), "%Q%");
        assert!(!strftime(u64::MAX, "%F").is_empty());
    }
}
