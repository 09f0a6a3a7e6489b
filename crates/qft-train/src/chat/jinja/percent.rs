//! Formatting with `%`.

use super::collections;
use super::fault::{Fault, Meter, Outcome};
use super::format::{Field, number, padded, small};
use super::repr;
use super::unicode;
use super::value::{Text, Value};
use std::iter::Peekable;
use std::str::Chars;

/// `text % values`.
///
/// Errors: values are missing or left over, or of another type than their fields; a marked text.
pub(super) fn format(text: &Text, values: &Value, meter: &Meter) -> Outcome<Value> {
    if text.markup {
        return Err(Fault::unsupported("formatting a marked text with `%`"));
    }
    let mut source = Source { values, taken: 0 };
    let mut out = String::new();
    let mut chars = text.text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let written = field(&mut chars, &mut source, meter)?;
        meter.bytes(written.len())?;
        out.push_str(&written);
    }
    meter.bytes(out.len())?;
    source.check_all_taken()?;
    Ok(Value::text(out))
}

struct Source<'a> {
    values: &'a Value,
    taken: usize,
}

impl Source<'_> {
    fn next(&mut self) -> Outcome<Value> {
        let value = match self.values {
            Value::Tuple(items) | Value::Group(items) => items.items.get(self.taken).cloned(),
            single => Some(single.clone()).filter(|_| self.taken == 0),
        };
        self.taken += 1;
        value.ok_or_else(|| Fault::new("not enough arguments for format string"))
    }

    fn get(&mut self, key: &str, meter: &Meter) -> Outcome<Value> {
        let Value::Dict(dict) = self.values else {
            return Err(Fault::new("format requires a mapping"));
        };
        let found = collections::find(dict, &Value::text(key), meter)?;
        found.ok_or_else(|| Fault::new(format!("format: no value of the name `{key}`")))
    }

    fn check_all_taken(&self) -> Outcome<()> {
        let all = match self.values {
            Value::Tuple(items) | Value::Group(items) => self.taken >= items.items.len(),
            // Whatever could hold values by name may be left out.
            Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) => true,
            _ => self.taken > 0,
        };
        match all {
            true => Ok(()),
            false => Err(Fault::new("not all arguments converted during string formatting")),
        }
    }
}

fn field(
    chars: &mut Peekable<Chars<'_>>,
    source: &mut Source<'_>,
    meter: &Meter,
) -> Outcome<String> {
    let mut named = None;
    if chars.next_if_eq(&'(').is_some() {
        let name: String = std::iter::from_fn(|| chars.next_if(|&c| c != ')')).collect();
        chars.next().ok_or_else(|| Fault::new("incomplete format key"))?;
        named = Some(name);
    }
    let mut field = Field::default();
    while let Some(flag) = chars.next_if(|c| "-+ #0".contains(*c)) {
        match flag {
            '-' => field.align = Some('<'),
            '+' => field.sign = Some('+'),
            ' ' => field.sign = field.sign.or(Some(' ')),
            '#' => field.alternate = true,
            _ => field.fill = Some('0'),
        }
    }
    if chars.peek() == Some(&'*') {
        return Err(Fault::unsupported("a width `*` in a format"));
    }
    let mut digits = String::new();
    digits.extend(std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)));
    field.width = if digits.is_empty() { 0 } else { small(&digits)? };
    if chars.next_if_eq(&'.').is_some() {
        digits.clear();
        digits.extend(std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)));
        field.precision = Some(if digits.is_empty() { 0 } else { small(&digits)? });
    }
    let kind = chars.next().ok_or_else(|| Fault::new("incomplete format"))?;
    let value = match &named {
        Some(name) => source.get(name, meter)?,
        None => source.next()?,
    };
    written(&value, kind, field, meter)
}

fn written(value: &Value, kind: char, mut field: Field, meter: &Meter) -> Outcome<String> {
    match kind {
        's' | 'r' | 'a' => {
            let text = match kind {
                's' => repr::text(value, meter)?,
                'r' => repr::repr(value, meter)?,
                _ => ascii(&repr::repr(value, meter)?),
            };
            let text: String = text.chars().take(field.precision.unwrap_or(usize::MAX)).collect();
            field.fill = None;
            Ok(padded("", &text, &field))
        }
        'c' => Err(Fault::unsupported("the format %c")),
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let value = match value {
                Value::Float(float) if matches!(kind, 'd' | 'i' | 'u') && float.abs() < 1e30 => {
                    Value::Int(float.trunc() as i128)
                }
                value => value.as_int().map(Value::Int).ok_or_else(|| {
                    Fault::new(format!(
                        "%{kind} format: a number is required, not {}",
                        value.kind()
                    ))
                })?,
            };
            if field.precision.take().is_some() {
                return Err(Fault::unsupported("a precision of integers in a format"));
            }
            field.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
            zeros(&mut field);
            number(&value, &field)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let value = match value {
                Value::Float(value) => Value::Float(*value),
                value => value.as_int().map(|int| Value::Float(int as f64)).ok_or_else(|| {
                    Fault::new(format!("must be real number, not {}", value.kind()))
                })?,
            };
            field.kind = Some(kind);
            zeros(&mut field);
            number(&value, &field)
        }
        other => Err(Fault::new(format!("unsupported format character '{other}'"))),
    }
}

/// Zeros stand between the sign and the digits, unless the number is to stand at the left.
fn zeros(field: &mut Field) {
    match (field.fill, field.align) {
        (Some(_), Some(_)) => field.fill = None,
        (Some(_), None) => field.align = Some('='),
        _ => {}
    }
}

fn ascii(text: &str) -> String {
    let write = |c: char| if c.is_ascii() { c.to_string() } else { unicode::escape(c) };
    text.chars().map(write).collect()
}
