//! Values as text, as Python's `str` and `repr` write them.

use super::fault::{Fault, Meter, Outcome};
use super::number_text;
use super::unicode;
use super::value::{Dict, Value, View};

/// `str(value)`.
///
/// Errors: Python writes an address in memory, or what is not supported.
pub(super) fn text(value: &Value, meter: &Meter) -> Outcome<String> {
    match value {
        Value::Text(text) => {
            meter.bytes(text.text.len())?;
            Ok(text.text.to_string())
        }
        Value::Undefined(_) => Ok(String::new()),
        value => repr(value, meter),
    }
}

/// `repr(value)`.
///
/// Errors: as of [`text`].
pub(super) fn repr(value: &Value, meter: &Meter) -> Outcome<String> {
    let mut out = String::new();
    write(&mut out, value, meter)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, meter: &Meter) -> Outcome<()> {
    meter.steps(1)?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Float(value) => out.push_str(&number_text::float(*value)),
        Value::Text(text) => {
            meter.bytes(text.text.len())?;
            if text.markup {
                out.push_str("Markup(");
            }
            quote(out, &text.text);
            if text.markup {
                out.push(')');
            }
        }
        Value::List(items) => list(out, "[", &items.items, "]", meter)?,
        Value::Tuple(items) | Value::Group(items) => {
            let close = if items.items.len() == 1 { ",)" } else { ")" };
            list(out, "(", &items.items, close, meter)?;
        }
        Value::Dict(dict) => entries(out, dict, meter)?,
        Value::Range(range) => {
            let step = if range.step == 1 { String::new() } else { format!(", {}", range.step) };
            out.push_str(&format!("range({}, {}{step})", range.start, range.stop));
        }
        Value::View(view, dict) => {
            out.push_str(value.kind());
            shown(out, *view, dict, meter)?;
        }
        Value::Namespace(namespace) => {
            let entries = namespace.lock().map_err(|_| Fault::new("a namespace is in use"))?;
            out.push_str("<Namespace {");
            for (i, (name, value)) in entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                quote(out, name);
                out.push_str(": ");
                write(out, value, meter)?;
            }
            out.push_str("}>");
        }
        Value::Iterator(_)
        | Value::Function(_)
        | Value::Method(_)
        | Value::Macro(..)
        | Value::Loop(_) => {
            return Err(Fault::unsupported(format!(
                "writing a value of type {} (an iterator becomes a list by the filter `list`, a method is called with ())",
                value.kind()
            )));
        }
    }
    Ok(())
}

fn entries(out: &mut String, dict: &Dict, meter: &Meter) -> Outcome<()> {
    out.push('{');
    for (i, (key, value)) in dict.entries.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        write(out, key, meter)?;
        out.push_str(": ");
        write(out, value, meter)?;
    }
    out.push('}');
    Ok(())
}

/// What a view shows, in brackets.
fn shown(out: &mut String, view: View, dict: &Dict, meter: &Meter) -> Outcome<()> {
    out.push_str("([");
    for (i, (key, value)) in dict.entries.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        match view {
            View::Keys => write(out, key, meter)?,
            View::Values => write(out, value, meter)?,
            View::Items => list(out, "(", &[key.clone(), value.clone()], ")", meter)?,
        }
    }
    out.push_str("])");
    Ok(())
}

fn list(out: &mut String, open: &str, items: &[Value], close: &str, meter: &Meter) -> Outcome<()> {
    out.push_str(open);
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        write(out, item, meter)?;
    }
    out.push_str(close);
    Ok(())
}

/// A text in quotes.
pub(super) fn quote(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if unicode::is_printable(c) => out.push(c),
            c => out.push_str(&unicode::escape(c)),
        }
    }
    out.push(quote);
}
