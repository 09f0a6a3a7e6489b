//! Tests: what follows `is`.

use super::args::{Args, needed};
use super::arithmetic::operate;
use super::compare;
use super::fault::{Fault, Outcome};
use super::filters;
use super::repr;
use super::run::Run;
use super::text_methods::cased;
use super::tree::{Comparison, Operator};
use super::value::Value;

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether a test holds.
///
/// Errors: there is none of the name; what is tested has no such property.
pub(super) fn holds(run: &mut Run<'_>, name: &str, of: &Value, args: &Args) -> Outcome<bool> {
    if let Some(how) = comparison(name) {
        let [other] = args.up_to(name)?;
        return compare::holds(how, of, needed(other, name)?, &run.meter);
    }
    match name {
        "divisibleby" => {
            let [number] = args.of(name, ["num"])?;
            let rest = operate(Operator::Remainder, of, needed(number, name)?, &run.meter)?;
            compare::equal(&rest, &Value::Int(0), &run.meter)
        }
        "sameas" => {
            let [other] = args.of(name, ["other"])?;
            let same = compare::same(of, needed(other, name)?);
            same.ok_or_else(|| {
                Fault::unsupported(format!("the test sameas of values of type {}", of.kind()))
            })
        }
        _ => {
            let [] = args.of(name, [])?;
            plain(run, name, of)
        }
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "==" | "eq" | "equalto" => Comparison::Equal,
        "!=" | "ne" => Comparison::NotEqual,
        ">" | "gt" | "greaterthan" => Comparison::Greater,
        ">=" | "ge" => Comparison::GreaterEqual,
        "<" | "lt" | "lessthan" => Comparison::Less,
        "<=" | "le" => Comparison::LessEqual,
        "in" => Comparison::In,
        _ => return None,
    })
}

fn plain(run: &Run<'_>, name: &str, of: &Value) -> Outcome<bool> {
    Ok(match name {
        "odd" | "even" => {
            let rest = operate(Operator::Remainder, of, &Value::Int(2), &run.meter)?;
            let wanted = Value::Int(i128::from(name == "odd"));
            compare::equal(&rest, &wanted, &run.meter)?
        }
        "defined" => !matches!(of, Value::Undefined(_)),
        "undefined" => matches!(of, Value::Undefined(_)),
        "filter" | "test" if !compare::is_key(of) => {
            return Err(Fault::new(format!("unhashable type: '{}'", of.kind())));
        }
        "filter" => of.as_text().is_some_and(filters::is_known),
        "test" => of.as_text().is_some_and(|name| NAMES.contains(&name)),
        "none" => matches!(of, Value::None),
        "boolean" => matches!(of, Value::Bool(_)),
        "true" => matches!(of, Value::Bool(true)),
        "false" => matches!(of, Value::Bool(false)),
        "integer" => matches!(of, Value::Int(_)),
        "float" => matches!(of, Value::Float(_)),
        "number" => matches!(of, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => matches!(of, Value::Text(_)),
        "mapping" => matches!(of, Value::Dict(_)),
        "lower" => cased(&repr::text(of, &run.meter)?, char::is_lowercase, char::is_uppercase),
        "upper" => cased(&repr::text(of, &run.meter)?, char::is_uppercase, char::is_lowercase),
        "escaped" => matches!(of, Value::Text(text) if text.markup),
        "sequence" => matches!(
            of,
            Value::Text(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Group(_)
                | Value::Dict(_)
                | Value::Range(_)
                | Value::Undefined(_)
        ),
        "iterable" => !matches!(
            of,
            Value::None
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Namespace(_)
                | Value::Function(_)
                | Value::Method(_)
                | Value::Macro(..)
        ),
        "callable" => matches!(
            of,
            Value::Function(_)
                | Value::Method(_)
                | Value::Macro(..)
                | Value::Loop(_)
                | Value::Undefined(_)
        ),
        name => return Err(Fault::new(format!("no test named '{name}'"))),
    })
}
