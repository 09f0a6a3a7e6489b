//! The operators of numbers, texts and lists.

use super::fault::{Fault, Meter, Outcome};
use super::tree::Operator;
use super::unicode::escaped;
use super::value::Value;
use super::{percent, repr};

/// The most elements or bytes that a repetition makes.
const MAX_REPEATED: usize = 1 << 27;

/// The largest integer up to which every one is a float.
const EXACT: i128 = 1 << 53;

/// Two operands as numbers.
enum Numbers {
    Ints(i128, i128),
    Floats(f64, f64),
}

/// `a` and `b` under an operator.
///
/// Errors: values of these types have none such; a division by zero; a number that is too large.
pub(super) fn operate(operator: Operator, a: &Value, b: &Value, meter: &Meter) -> Outcome<Value> {
    match (operator, a, b) {
        (Operator::Join, a, b) => return join(a, b, meter),
        (Operator::Remainder, Value::Text(text), b) => return percent::format(text, b, meter),
        (_, Value::Undefined(what), _) | (_, _, Value::Undefined(what)) => {
            return Err(Fault::new(what.to_string()));
        }
        (Operator::Add, Value::Text(a), Value::Text(b)) => {
            meter.bytes(a.text.len() + b.text.len())?;
            // A marked text escapes what is added to it.
            let part = |text: &super::value::Text, markup: bool| match markup && !text.markup {
                true => escaped(&text.text),
                false => text.text.to_string(),
            };
            let markup = a.markup || b.markup;
            return Ok(Value::marked(part(a, markup) + &part(b, markup), markup));
        }
        (Operator::Add, Value::List(a), Value::List(b)) => {
            meter.steps(a.items.len() + b.items.len())?;
            return Value::list([&a.items[..], &b.items].concat());
        }
        (Operator::Add, Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
            meter.steps(a.items.len() + b.items.len())?;
            return Value::tuple([&a.items[..], &b.items].concat());
        }
        (Operator::Subtract, Value::View(..), _) => {
            return Err(Fault::unsupported("subtracting from a view of a dictionary"));
        }
        (Operator::Multiply, value, times) | (Operator::Multiply, times, value)
            if is_repeated(value) && times.as_int().is_some() =>
        {
            return repeat(value, times.as_int().unwrap_or(0), meter);
        }
        _ => {}
    }
    match numbers(a, b) {
        Some(Numbers::Ints(a, b)) => ints(operator, a, b),
        Some(Numbers::Floats(a, b)) => floats(operator, a, b),
        None => Err(Fault::new(format!(
            "unsupported operand type(s) for {}: '{}' and '{}'",
            sign(operator),
            a.kind(),
            b.kind()
        ))),
    }
}

/// `-value`.
pub(super) fn negate(value: &Value) -> Outcome<Value> {
    match (value, value.as_int()) {
        (Value::Float(value), _) => Ok(Value::Float(-value)),
        (_, Some(value)) => value.checked_neg().map(Value::Int).ok_or_else(too_large),
        (Value::Undefined(what), _) => Err(Fault::new(what.to_string())),
        (value, None) => {
            Err(Fault::new(format!("bad operand type for unary -: '{}'", value.kind())))
        }
    }
}

fn join(a: &Value, b: &Value, meter: &Meter) -> Outcome<Value> {
    let mut text = repr::text(a, meter)?;
    text.push_str(&repr::text(b, meter)?);
    meter.bytes(text.len())?;
    Ok(Value::text(text))
}

fn is_repeated(value: &Value) -> bool {
    matches!(value, Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Group(_))
}

fn repeat(value: &Value, times: i128, meter: &Meter) -> Outcome<Value> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let check = |len: usize| match len.checked_mul(times) {
        Some(made) if made <= MAX_REPEATED => Ok(made),
        _ => Err(Fault::OutOfFuel),
    };
    match value {
        Value::Text(text) => {
            meter.bytes(check(text.text.len())?)?;
            Ok(Value::marked(text.text.repeat(times), text.markup))
        }
        Value::List(items) => {
            meter.steps(check(items.items.len())?)?;
            Value::list(repeated(&items.items, times))
        }
        Value::Tuple(items) | Value::Group(items) => {
            meter.steps(check(items.items.len())?)?;
            Value::tuple(repeated(&items.items, times))
        }
        other => Ok(other.clone()),
    }
}

fn repeated(items: &[Value], times: usize) -> Vec<Value> {
    std::iter::repeat_n(items, times).flatten().cloned().collect()
}

fn numbers(a: &Value, b: &Value) -> Option<Numbers> {
    let float = |value: &Value| match value {
        Value::Float(value) => Some(*value),
        value => Some(value.as_int()? as f64),
    };
    match (a.as_int(), b.as_int()) {
        (Some(a), Some(b)) => Some(Numbers::Ints(a, b)),
        _ => Some(Numbers::Floats(float(a)?, float(b)?)),
    }
}

fn too_large() -> Fault {
    Fault::unsupported("an integer of more than 128 bits")
}

fn by_zero() -> Fault {
    Fault::new("division by zero")
}

fn ints(operator: Operator, a: i128, b: i128) -> Outcome<Value> {
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide => {
            if b == 0 {
                return Err(by_zero());
            }
            if a.abs() > EXACT || b.abs() > EXACT {
                return Err(Fault::unsupported("dividing integers of more than 53 bits with `/`"));
            }
            return Ok(Value::Float(a as f64 / b as f64));
        }
        Operator::FloorDivide | Operator::Remainder if b == 0 => return Err(by_zero()),
        Operator::FloorDivide => {
            let quotient = a.checked_div(b).ok_or_else(too_large)?;
            Some(quotient - i128::from(a % b != 0 && (a < 0) != (b < 0)))
        }
        Operator::Remainder => {
            let rest = a.checked_rem(b).unwrap_or(0);
            Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        Operator::Power if b < 0 => return floats(operator, a as f64, b as f64),
        Operator::Power => match a {
            0 | 1 => Some(if b == 0 { 1 } else { a }),
            -1 => Some(if b % 2 == 0 { 1 } else { -1 }),
            a => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        },
        Operator::Join => None,
    };
    result.map(Value::Int).ok_or_else(too_large)
}

fn floats(operator: Operator, a: f64, b: f64) -> Outcome<Value> {
    if b == 0.0
        && matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Remainder)
    {
        return Err(by_zero());
    }
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::FloorDivide => quotient(a, b).0,
        Operator::Remainder => quotient(a, b).1,
        Operator::Power => return power(a, b),
        Operator::Join => return Err(Fault::new("cannot join numbers")),
    }))
}

/// The whole part of a quotient and the rest, as Python rounds them.
fn quotient(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (b < 0.0) != (rest < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

fn power(a: f64, b: f64) -> Outcome<Value> {
    if a == 0.0 && b < 0.0 {
        return Err(Fault::new("0.0 cannot be raised to a negative power"));
    }
    if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 {
        return Err(Fault::unsupported("a complex number"));
    }
    let power = a.powf(b);
    if power.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(Fault::new("the result of ** is too large"));
    }
    Ok(Value::Float(power))
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Remainder => "%",
        Operator::Power => "**",
        Operator::Join => "~",
    }
}
