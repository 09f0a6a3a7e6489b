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
            ValueKind::Number => self.out.push_str(&number(value)),
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

/// A number as Python writes it: of floats, those that are very large or small with an exponent.
pub(super) fn number(value: &Value) -> String {
    let plain = value.to_string();
    let Ok(float) = f64::try_from(value.clone()) else { return plain };
    if value.is_integer() {
        return plain;
    }
    let size = float.abs();
    if !size.is_finite() || size == 0.0 || (1e-4..1e16).contains(&size) {
        return plain;
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A value as Python writes it, where the engine writes it otherwise: one with such numbers in it.
pub(super) fn text(value: &Value) -> Option<String> {
    let plain = value.to_string();
    let written = match value.kind() {
        ValueKind::Number => number(value),
        ValueKind::Seq | ValueKind::Map => {
            let mut out = String::new();
            write(&mut out, value).ok()?;
            out
        }
        _ => return None,
    };
    (written != plain).then_some(written)
}

fn write(out: &mut String, value: &Value) -> Result<(), Error> {
    let is_map = value.kind() == ValueKind::Map;
    let (open, close) = match value.kind() {
        ValueKind::Map => ('{', '}'),
        ValueKind::Seq if !value.is_tuple() => ('[', ']'),
        ValueKind::Number => {
            out.push_str(&number(value));
            return Ok(());
        }
        _ => {
            // As the only element of a list, without its brackets.
            let list = Value::from(vec![value.clone()]).to_string();
            out.push_str(&list[1..list.len() - 1]);
            return Ok(());
        }
    };
    out.push(open);
    for (i, item) in value.try_iter()?.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(out, &item)?;
        if is_map {
            out.push_str(": ");
            write(out, &value.get_item(&item)?)?;
        }
    }
    out.push(close);
    Ok(())
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
/// are. A `-` before a code takes away the zeros and blanks that fill it up.
pub(super) fn strftime(seconds: u64, format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (flag, code) = match chars.next() {
            Some('-') => ("-", chars.next()),
            code => ("", code),
        };
        match code.and_then(|code| dated(seconds, code)) {
            Some(text) if flag == "-" => {
                let bare = text.trim_start_matches(['0', ' ']);
                out.push_str(if bare.is_empty() { "0" } else { bare });
            }
            Some(text) => out.push_str(&text),
            None => {
                out.push('%');
                out.push_str(flag);
                out.extend(code);
            }
        }
    }
    out
}

/// What a code of `strftime` stands for.
fn dated(seconds: u64, code: char) -> Option<String> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    // From 1, and from Sunday.
    let (day_of_year, weekday) = (1 + day_of_year(year, month, day), (days + 4) % 7);
    Some(match code {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year % 100),
        'm' => format!("{month:02}"),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'B' => month_name.into(),
        'b' | 'h' => month_name[..3].into(),
        'A' => day_name.into(),
        'a' => day_name[..3].into(),
        'j' => format!("{day_of_year:03}"),
        'w' => weekday.to_string(),
        'u' => (if weekday == 0 { 7 } else { weekday }).to_string(),
        'U' => format!("{:02}", (day_of_year + 6 - weekday) / 7),
        'W' => format!("{:02}", (day_of_year + 6 - (weekday + 6) % 7) / 7),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{:02}", second % 60),
        'p' => (if hour < 12 { "AM" } else { "PM" }).into(),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'T' => format!("{hour:02}:{minute:02}:{:02}", second % 60),
        '%' => "%".into(),
        _ => return None,
    })
}

/// Days of a year before a date.
fn day_of_year(year: u64, month: u64, day: u64) -> u64 {
    let lengths = month_lengths(year);
    lengths.iter().take(month as usize - 1).sum::<u64>() + day - 1
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_lengths(year: u64) -> [u64; 12] {
    [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Year, month and day of a day since 1970, by whole years and months.
fn civil(mut days: u64) -> (u64, u64, u64) {
    // 400 years of the calendar repeat.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in month_lengths(year) {
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
        assert_eq!(strftime(0, "%Q%%%-Q%"), "%Q%%-Q%");
        assert_eq!(strftime(951_827_696, "%j %U %W %w %u %-d %-m %-I"), "060 09 09 2 2 29 2 12");
        assert_eq!(strftime(0, "%-H %-S"), "0 0");
        assert!(!strftime(u64::MAX, "%F").is_empty());
    }
}
