//! Filters of numbers.

use super::super::args::{Args, integer, needed, text};
use super::super::arithmetic::operate;
use super::super::attributes;
use super::super::fault::{Fault, Outcome};
use super::super::iterate;
use super::super::run::Run;
use super::super::tree::Operator;
use super::super::unicode;
use super::super::value::Value;

/// Decimals that a number is rounded to.
const MAX_DECIMALS: i128 = 300;

pub(super) fn apply(run: &mut Run<'_>, name: &str, of: &Value, args: &Args) -> Outcome<Value> {
    match name {
        "abs" => {
            let [] = args.of(name, [])?;
            match (of, of.as_int()) {
                (Value::Float(value), _) => Ok(Value::Float(value.abs())),
                (_, Some(value)) => Ok(Value::Int(value.saturating_abs())),
                _ => Err(Fault::new(format!("bad operand type for abs(): '{}'", of.kind()))),
            }
        }
        "int" => {
            let [default, base] = args.of(name, ["default", "base"])?;
            let base = base.map_or(Ok(10), |base| integer(base, name))?;
            let number = int(of, base)?;
            Ok(number.map_or_else(|| default.cloned().unwrap_or(Value::Int(0)), Value::Int))
        }
        "float" => {
            let [default] = args.of(name, ["default"])?;
            let number = float(of)?;
            Ok(number.map_or_else(|| default.cloned().unwrap_or(Value::Float(0.0)), Value::Float))
        }
        "round" => round(of, args),
        _ => {
            let [attribute, start] = args.of(name, ["attribute", "start"])?;
            let mut sum = start.cloned().unwrap_or(Value::Int(0));
            if let Value::Text(_) = sum {
                return Err(Fault::new("sum() can't sum strings"));
            }
            for item in iterate::elements(of, &run.meter)? {
                let item = match attribute {
                    None | Some(Value::None) => item,
                    Some(path) => attributes::path(run, &item, path, None)?,
                };
                sum = operate(Operator::Add, &sum, &item, &run.meter)?;
            }
            Ok(sum)
        }
    }
}

/// `int(value, base)`; none where Python falls back on the default.
fn int(value: &Value, base: i128) -> Outcome<Option<i128>> {
    match (value, value.as_int()) {
        (_, Some(int)) => Ok(Some(int)),
        (Value::Float(value), _) if value.is_infinite() => {
            Err(Fault::new("cannot convert float infinity to integer"))
        }
        (Value::Float(value), _) => truncated(*value),
        (Value::Text(text), _) => {
            if base != 10 {
                return Err(Fault::unsupported("the filter int with another base"));
            }
            if let Some(int) = whole(&text.text)? {
                return Ok(Some(int));
            }
            match parsed(&text.text)? {
                Some(value) if value.is_finite() => truncated(value),
                _ => Ok(None),
            }
        }
        (Value::Undefined(what), _) => Err(Fault::new(what.to_string())),
        _ => Ok(None),
    }
}

fn truncated(value: f64) -> Outcome<Option<i128>> {
    if value.is_nan() {
        return Ok(None);
    }
    if value.abs() >= 1e38 {
        return Err(Fault::unsupported("an integer of more than 128 bits"));
    }
    Ok(Some(value.trunc() as i128))
}

fn whole(text: &str) -> Outcome<Option<i128>> {
    let Some(text) = plain(text)? else { return Ok(None) };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let int = text.parse::<i128>();
    int.map(Some).map_err(|_| Fault::unsupported("an integer of more than 128 bits"))
}

fn float(value: &Value) -> Outcome<Option<f64>> {
    match (value, value.as_int()) {
        (Value::Float(value), _) => Ok(Some(*value)),
        (_, Some(int)) => Ok(Some(int as f64)),
        (Value::Text(text), _) => parsed(&text.text),
        (Value::Undefined(what), _) => Err(Fault::new(what.to_string())),
        _ => Ok(None),
    }
}

/// A text as `float` reads it.
fn parsed(text: &str) -> Outcome<Option<f64>> {
    Ok(plain(text)?.and_then(|text| text.parse().ok()))
}

/// Without white space around it and underscores between its digits; none where they stand elsewhere.
fn plain(text: &str) -> Outcome<Option<String>> {
    let text = text.trim_matches(unicode::is_space);
    if text.chars().any(|c| !c.is_ascii() && c.is_numeric()) {
        return Err(Fault::unsupported("digits of other scripts as a number"));
    }
    let bytes = text.as_bytes();
    let digit = |place: Option<usize>| {
        place.and_then(|place| bytes.get(place)).is_some_and(u8::is_ascii_digit)
    };
    let misplaced = (0..bytes.len())
        .any(|i| bytes[i] == b'_' && !(digit(i.checked_sub(1)) && digit(Some(i + 1))));
    Ok((!misplaced).then(|| text.replace('_', "")))
}

fn round(of: &Value, args: &Args) -> Outcome<Value> {
    let [precision, method] = args.of("round", ["precision", "method"])?;
    let precision = precision.map_or(Ok(0), |precision| integer(precision, "round"))?;
    let method = method.map_or(Ok("common"), |method| text(method, "round"))?;
    if !(0..=MAX_DECIMALS).contains(&precision) {
        return Err(Fault::unsupported("the filter round with so many, or fewer than no decimals"));
    }
    let value = match (of, of.as_int()) {
        (_, Some(int)) if method == "common" => return Ok(Value::Int(int)),
        (Value::Float(value), _) => *value,
        (_, Some(int)) => int as f64,
        (Value::Undefined(what), _) => return Err(Fault::new(what.to_string())),
        _ => return Err(Fault::new(format!("cannot round a value of type {}", of.kind()))),
    };
    let scale = 10_f64.powi(precision as i32);
    let whole = match method {
        "common" => {
            let digits = format!("{value:.*}", precision as usize);
            return Ok(Value::Float(digits.parse().unwrap_or(value)));
        }
        "ceil" => (value * scale).ceil(),
        "floor" => (value * scale).floor(),
        _ => return Err(Fault::new("method must be common, ceil or floor")),
    };
    if !whole.is_finite() {
        return Err(Fault::new("cannot convert float to integer"));
    }
    // An integer in Python, which has no zero below zero.
    Ok(Value::Float((whole + 0.0) / scale))
}

/// An argument that is a number of elements.
pub(super) fn count(value: Option<&Value>, filter: &str) -> Outcome<i128> {
    integer(needed(value, filter)?, filter)
}
