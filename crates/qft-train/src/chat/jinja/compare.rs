//! Comparing values as Python does.

use super::fault::{Fault, Meter, Outcome};
use super::iterate;
use super::tree::Comparison;
use super::value::{Value, View};
use std::cmp::Ordering;

/// Whether a comparison holds.
///
/// Errors: values of these types cannot be compared so.
pub(super) fn holds(how: Comparison, a: &Value, b: &Value, meter: &Meter) -> Outcome<bool> {
    Ok(match how {
        Comparison::Equal => equal(a, b, meter)?,
        Comparison::NotEqual => !equal(a, b, meter)?,
        Comparison::In => contains(b, a, meter)?,
        Comparison::NotIn => !contains(b, a, meter)?,
        Comparison::Less => order(a, b, "<", meter)? == Some(Ordering::Less),
        Comparison::LessEqual => {
            matches!(order(a, b, "<=", meter)?, Some(Ordering::Less | Ordering::Equal))
        }
        Comparison::Greater => order(a, b, ">", meter)? == Some(Ordering::Greater),
        Comparison::GreaterEqual => {
            matches!(order(a, b, ">=", meter)?, Some(Ordering::Greater | Ordering::Equal))
        }
    })
}

/// Whether two values are equal.
pub(super) fn equal(a: &Value, b: &Value, meter: &Meter) -> Outcome<bool> {
    meter.steps(1)?;
    if let Some(order) = numbers(a, b) {
        return Ok(order == Some(Ordering::Equal));
    }
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Text(a), Value::Text(b)) => {
            meter.bytes(a.text.len().min(b.text.len()))?;
            a.text == b.text
        }
        (Value::List(a), Value::List(b)) => all_equal(&a.items, &b.items, meter)?,
        (Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
            all_equal(&a.items, &b.items, meter)?
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.entries.len() != b.entries.len() {
                return Ok(false);
            }
            for (key, value) in &a.entries {
                match super::collections::find(b, key, meter)? {
                    Some(other) if equal(value, &other, meter)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(a), Value::Range(b)) => {
            let len = a.len();
            len == b.len() && (len == 0 || a.start == b.start) && (len < 2 || a.step == b.step)
        }
        (Value::View(..), Value::View(..)) => {
            return Err(Fault::unsupported("comparing views of dictionaries"));
        }
        (Value::Method(a), Value::Method(b)) => a.1 == b.1 && same(&a.0, &b.0) == Some(true),
        (a, b) => same(a, b) == Some(true),
    })
}

/// Whether all elements are equal.
pub(super) fn all_equal(a: &[Value], b: &[Value], meter: &Meter) -> Outcome<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        if !equal(a, b, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two values are the same object; none where that cannot be told here.
pub(super) fn same(a: &Value, b: &Value) -> Option<bool> {
    use std::sync::Arc;
    match (a, b) {
        (Value::None, Value::None) => Some(true),
        (Value::Bool(a), Value::Bool(b)) => Some(a == b),
        (Value::Namespace(a), Value::Namespace(b)) => Some(Arc::ptr_eq(a, b)),
        (Value::Iterator(a), Value::Iterator(b)) => Some(Arc::ptr_eq(a, b)),
        (Value::Loop(a), Value::Loop(b)) => Some(Arc::ptr_eq(a, b)),
        (Value::Macro(a, c), Value::Macro(b, d)) => Some((a, c) == (b, d)),
        (Value::Function(a), Value::Function(b)) => Some(a == b),
        // Python keeps one object of each small integer.
        (Value::Int(a), Value::Int(b)) => {
            if a == b && !(-5..=256).contains(a) {
                None
            } else {
                Some(a == b)
            }
        }
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => Some(false),
        _ => None,
    }
}

/// How two numbers compare: the outer none where they are not both numbers, the inner where one is not a number.
fn numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Some(a.partial_cmp(b)),
        (Value::Float(a), b) => Some(with_float(b.as_int()?, *a).map(Ordering::reverse)),
        (a, Value::Float(b)) => Some(with_float(a.as_int()?, *b)),
        (a, b) => Some(Some(a.as_int()?.cmp(&b.as_int()?))),
    }
}

/// How an integer compares with a float, exactly.
fn with_float(a: i128, b: f64) -> Option<Ordering> {
    /// Floats from here on are beyond any integer of 128 bits.
    const END: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0;
    if b.is_nan() {
        return None;
    }
    if b >= END {
        return Some(Ordering::Less);
    }
    if b < -END {
        return Some(Ordering::Greater);
    }
    let whole = b.trunc();
    Some(a.cmp(&(whole as i128)).then_with(|| 0.0_f64.total_cmp(&(b - whole + 0.0))))
}

/// The order of two values; none of numbers of which one is not a number.
///
/// Errors: they have none.
pub(super) fn order(a: &Value, b: &Value, sign: &str, meter: &Meter) -> Outcome<Option<Ordering>> {
    meter.steps(1)?;
    if let Some(order) = numbers(a, b) {
        return Ok(order);
    }
    match (a, b) {
        (Value::Undefined(what), _) | (_, Value::Undefined(what)) => {
            Err(Fault::new(what.to_string()))
        }
        // By characters, which UTF-8 keeps in order.
        (Value::Text(a), Value::Text(b)) => {
            meter.bytes(a.text.len().min(b.text.len()))?;
            Ok(Some(a.text.cmp(&b.text)))
        }
        (Value::List(a), Value::List(b))
        | (Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(a, b, meter)? {
                    return order(a, b, sign, meter);
                }
            }
            Ok(Some(a.items.len().cmp(&b.items.len())))
        }
        (Value::View(..), Value::View(..)) => {
            Err(Fault::unsupported("comparing views of dictionaries"))
        }
        (a, b) => Err(Fault::new(format!(
            "'{sign}' not supported between instances of '{}' and '{}'",
            a.kind(),
            b.kind()
        ))),
    }
}

/// Whether a value can be a key of a dictionary.
pub(super) fn is_key(value: &Value) -> bool {
    match value {
        Value::List(_) | Value::Dict(_) => false,
        Value::Tuple(items) | Value::Group(items) => items.items.iter().all(is_key),
        Value::View(view, _) => *view == View::Values,
        _ => true,
    }
}

/// `item in within`.
pub(super) fn contains(within: &Value, item: &Value, meter: &Meter) -> Outcome<bool> {
    match (within, item) {
        (Value::Text(within), Value::Text(item)) => {
            meter.bytes(within.text.len())?;
            Ok(within.text.contains(&*item.text))
        }
        (Value::Text(_), item) => Err(Fault::new(format!(
            "'in <string>' requires string as left operand, not {}",
            item.kind()
        ))),
        (Value::Dict(dict) | Value::View(View::Keys, dict), item) => {
            if !is_key(item) {
                return Err(Fault::new(format!("unhashable type: '{}'", item.kind())));
            }
            Ok(super::collections::find(dict, item, meter)?.is_some())
        }
        (Value::Iterator(once), item) => {
            while let Some(next) = iterate::next(once)? {
                if equal(&next, item, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::List(items) | Value::Tuple(items) | Value::Group(items), item) => {
            for other in &items.items {
                if equal(other, item, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (within, item) => {
            for other in iterate::elements(within, meter)? {
                if equal(&other, item, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}
