//! Attributes and items of values.

use super::collections;
use super::compare;
use super::fault::{Fault, Outcome};
use super::iterate;
use super::run::Run;
use super::value::{Function, Value};
use std::sync::Arc;

/// Methods that change a list or dictionary: templates may not call them.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "discard",
];

const TEXT: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const LIST: [&str; 3] = ["copy", "count", "index"];
const TUPLE: [&str; 2] = ["count", "index"];
const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
/// Of integers and truth values, and of floats.
const NUMBER: [&str; 13] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "fromhex",
    "from_bytes",
    "hex",
    "imag",
    "is_integer",
    "numerator",
    "real",
    "to_bytes",
];
/// Of ranges, views, iterators and marked texts, beside those of others: none that a template needs.
const OTHER: [&str; 16] = [
    "start",
    "stop",
    "step",
    "count",
    "index",
    "mapping",
    "isdisjoint",
    "send",
    "throw",
    "close",
    "gi_running",
    "escape",
    "unescape",
    "striptags",
    "gi_frame",
    "gi_code",
];

/// An attribute of a value, or where it has none of the name the item.
pub(super) fn attribute(run: &mut Run<'_>, of: &Value, name: &str) -> Outcome<Value> {
    if let Some(found) = own(run, of, name)? {
        return Ok(found);
    }
    let found = match of {
        Value::Dict(dict) => dict.text(name).cloned(),
        _ => None,
    };
    Ok(found.unwrap_or_else(|| missing(of, name)))
}

fn missing(of: &Value, name: &str) -> Value {
    Value::undefined(format!("'{}' object has no attribute '{name}'", of.kind()))
}

/// An attribute that a value has as Python's type; none where there is none.
pub(super) fn own(run: &mut Run<'_>, of: &Value, name: &str) -> Outcome<Option<Value>> {
    let (methods, changing): (&[&str], bool) = match of {
        Value::Undefined(what) => return Err(Fault::new(what.to_string())),
        Value::Loop(this) => return run.loop_attribute(this, name).map(Some),
        Value::Macro(number, _) => return run.macro_attribute(*number, name).map(Some),
        Value::Namespace(namespace) => {
            let entries = namespace.lock().map_err(|_| Fault::new("a namespace is in use"))?;
            let found = entries.iter().find(|(known, _)| **known == *name);
            return Ok(Some(found.map_or_else(|| missing(of, name), |(_, value)| value.clone())));
        }
        Value::Group(items) => match name {
            "grouper" => return Ok(Some(items.items[0].clone())),
            "list" => return Ok(Some(items.items[1].clone())),
            _ => (&TUPLE, false),
        },
        Value::Text(_) => (&TEXT, false),
        Value::List(_) => (&LIST, true),
        Value::Dict(_) => (&DICT, true),
        Value::Tuple(_) => (&TUPLE, false),
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => (&NUMBER, false),
        Value::Function(Function::Dict) if name == "fromkeys" => {
            return Err(Fault::unsupported("dict.fromkeys"));
        }
        Value::None | Value::Function(_) | Value::Method(_) => (&[], false),
        Value::Range(_) | Value::View(..) | Value::Iterator(_) => (&OTHER, false),
    };
    if name.starts_with("__") && name.ends_with("__") {
        return Ok(Some(Value::undefined(format!("access to attribute '{name}' is unsafe"))));
    }
    if changing && CHANGING.contains(&name) {
        return Ok(Some(Value::undefined(format!(
            "'{}' objects cannot be changed in a template, as by `{name}`",
            of.kind()
        ))));
    }
    let Some(method) = methods.iter().find(|known| **known == name) else {
        let marked = matches!(of, Value::Text(text) if text.markup);
        if marked && OTHER.contains(&name) {
            return Err(Fault::unsupported(format!("the attribute `{name}` of a marked text")));
        }
        return Ok(None);
    };
    if matches!(of, Value::Int(_) | Value::Bool(_) | Value::Float(_))
        || std::ptr::eq(methods, &OTHER[..])
    {
        return Err(Fault::unsupported(format!("the attribute `{name}` of {}", of.kind())));
    }
    Ok(Some(Value::Method(Arc::new((of.clone(), method)))))
}

/// `of[key]`.
pub(super) fn item(run: &mut Run<'_>, of: &Value, key: &Value) -> Outcome<Value> {
    let found = match of {
        Value::Undefined(what) => return Err(Fault::new(what.to_string())),
        Value::Dict(dict) => {
            if compare::is_key(key) {
                collections::find(dict, key, &run.meter)?
            } else {
                None
            }
        }
        Value::Text(text) => at(key, text.text.chars().count())
            .and_then(|index| text.text.chars().nth(index))
            .map(|c| Value::marked(c.to_string(), text.markup)),
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
            at(key, items.items.len()).map(|index| items.items[index].clone())
        }
        Value::Range(range) => at(key, range.len()).map(|index| range.get(index)),
        _ => None,
    };
    if let Value::Text(text) = of {
        run.meter.bytes(text.text.len())?;
    }
    if let Some(found) = found {
        return Ok(found);
    }
    match key.as_text() {
        Some(name) => Ok(own(run, of, name)?.unwrap_or_else(|| missing(of, name))),
        None => Ok(Value::undefined(format!("'{}' object has no such element", of.kind()))),
    }
}

/// The place that an index names among so many.
fn at(key: &Value, len: usize) -> Option<usize> {
    let index = key.as_int()?;
    let index = if index < 0 { index + len as i128 } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

/// A path of attributes, as filters take it: `a.b`, `a.0`, or an index.
///
/// With `default`, what is not there is that.
pub(super) fn path(
    run: &mut Run<'_>,
    of: &Value,
    path: &Value,
    default: Option<&Value>,
) -> Outcome<Value> {
    let mut found = of.clone();
    for part in parts(path) {
        found = item(run, &found, &part)?;
        if let (Value::Undefined(_), Some(default)) = (&found, default) {
            found = default.clone();
        }
    }
    Ok(found)
}

fn parts(path: &Value) -> Vec<Value> {
    match path {
        Value::None => Vec::new(),
        Value::Text(text) => {
            let part = |part: &str| match part.parse::<u64>() {
                Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => Value::Int(index.into()),
                _ => Value::text(part),
            };
            text.text.split('.').map(part).collect()
        }
        other => vec![other.clone()],
    }
}

/// Several paths with commas between them.
pub(super) fn paths(run: &mut Run<'_>, of: &Value, paths: &Value) -> Outcome<Vec<Value>> {
    match paths {
        Value::Text(text) => {
            text.text.split(',').map(|part| path(run, of, &Value::text(part), None)).collect()
        }
        other => Ok(vec![path(run, of, other, None)?]),
    }
}

/// Elements as Python's `list` has them.
pub(super) fn list(run: &Run<'_>, value: &Value) -> Outcome<Vec<Value>> {
    iterate::elements(value, &run.meter)
}
