//! Python's methods of texts, lists and mappings, each at its price.
//!
//! The engine's companion knows the methods and charges for some: what is charged here is what a method goes through,
//! and what it makes, where nothing else bounds them.

use super::text_methods;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Bytes that a method may go through for one fuel, as in the engine.
const BYTES_PER_FUEL: usize = 64;

/// The most digits of a width or a precision that `format` is given.
const MAX_WIDTH_DIGITS: usize = 4;

/// Calls a method that the engine does not know.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?;
        match method {
            "format" => check_format(state, text, args)?,
            // Each part is a value of its own, which takes more than its text.
            "split" | "splitlines" => state.consume_fuel(text.len() as u64 / 2)?,
            "rsplit" => state.consume_fuel(text.len() as u64 / 2)?,
            "join" => go_through(state, args.first())?,
            _ => {}
        }
        if let Some(result) = text_methods::call(text, method, args) {
            return result;
        }
    } else if matches!(method, "count" | "index") {
        go_through(state, Some(value))?;
    }
    match (method, value.kind()) {
        // Values do not change, so a copy is the same.
        ("copy", ValueKind::Seq | ValueKind::Map) => return Ok(value.clone()),
        ("index", ValueKind::Seq) => return index(value, args),
        _ => {}
    }
    unknown_method_callback(state, value, method, args)
}

/// Where a value stands in a list.
fn index(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let found = list.try_iter()?.position(|item| args.first() == Some(&item));
    let missing = || Error::new(ErrorKind::InvalidOperation, "index: the list has no such value");
    found.map(Value::from).ok_or_else(missing)
}

/// Charges for the values of a list: `[0] * n` is one that costs its template nothing.
fn go_through(state: &State, list: Option<&Value>) -> Result<(), Error> {
    let Some(Ok(items)) = list.map(Value::try_iter) else { return Ok(()) };
    for item in items {
        state.consume_fuel(1)?;
        if let Some(text) = item.as_str() {
            state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?;
        }
    }
    Ok(())
}

/// Refuses widths that fill the memory, and charges for the texts that fields are replaced with.
fn check_format(state: &State, text: &str, args: &[Value]) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::InvalidOperation, why.to_string()));
    let digits = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    if digits.is_some_and(|digits| digits > MAX_WIDTH_DIGITS) {
        return refuse("format: a number in the format is too long");
    }
    let mut longest = 10_usize.pow(MAX_WIDTH_DIGITS as u32);
    for arg in args {
        match arg.kind() {
            ValueKind::String => longest = longest.max(arg.as_str().unwrap_or_default().len()),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Plain => {
                return refuse("format: takes texts and numbers only");
            }
            _ => {}
        }
    }
    let fields = text.matches('{').count();
    state.consume_fuel((fields.saturating_mul(longest) / BYTES_PER_FUEL) as u64)
}
