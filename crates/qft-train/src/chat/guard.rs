//! Values that are written as text, after they were found to be small enough.
//!
//! A list that holds another one twice, which holds another one twice, is small in memory and has no end as text. The
//! engine charges for a text when it is written: here every value in the value is charged for before.

use super::python;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Values nested deeper than this are refused.
const MAX_DEPTH: usize = 128;

/// Filters that write values as text, or read them as one.
const WRITING: [&str; 15] = [
    "capitalize",
    "e",
    "escape",
    "format",
    "indent",
    "join",
    "lines",
    "lower",
    "replace",
    "safe",
    "split",
    "string",
    "title",
    "trim",
    "upper",
];

/// Guards everything that writes values as text but the operators `~` and `in`, which cannot be replaced.
pub(super) fn install(env: &mut Environment<'static>) {
    env.remove_global("debug");
    env.set_formatter(|out, state, value| {
        check(state, value)?;
        match python::text(value) {
            Some(text) => minijinja::escape_formatter(out, state, &Value::from(text)),
            None => minijinja::escape_formatter(out, state, value),
        }
    });
    for name in WRITING {
        env.add_filter(name, move |state: &mut State, args: Rest<Value>| {
            args.iter().try_for_each(|arg| check(state, arg))?;
            if let ("string", Some(text)) = (name, args.first().and_then(python::text)) {
                return Ok(Value::from(text));
            }
            charged(state, name, &args)
        });
    }
}

/// Calls a filter of the engine, at the cost of `state`.
pub(super) fn charged(state: &State, name: &str, args: &[Value]) -> Result<Value, Error> {
    let mut engine = Environment::new();
    engine.set_fuel(state.fuel_levels().map(|(_, left)| left));
    let mut inner = engine.empty_state();
    let result = inner.apply_filter(name, args)?;
    state.consume_fuel(inner.fuel_levels().map_or(0, |(used, _)| used))?;
    Ok(result)
}

/// Charges for all values in a value.
///
/// Errors: it is nested too deeply; the fuel is used up.
fn check(state: &State, value: &Value) -> Result<(), Error> {
    check_level(state, value, 0)
}

fn check_level(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    let is_map = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => false,
        ValueKind::Map => true,
        _ => return Ok(()),
    };
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply"));
    }
    // Some, such as macros, are written by their name only.
    let Ok(items) = value.try_iter() else { return Ok(()) };
    for item in items {
        let bytes = item.as_str().map_or(0, str::len);
        state.consume_fuel(1 + bytes as u64 / 64)?;
        check_level(state, &item, depth + 1)?;
        if is_map {
            check_level(state, &value.get_item(&item)?, depth + 1)?;
        }
    }
    Ok(())
}
