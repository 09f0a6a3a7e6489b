//! Functions that every template knows.

use super::args::{Args, integer, text};
use super::fault::{Fault, Meter, Outcome};
use super::run::set_attribute;
use super::value::{Function, Range, Value};
use super::{clock, collections, repr};
use std::sync::{Arc, Mutex};

/// The longest range, as in the sandbox of Jinja2.
const MAX_RANGE: usize = 100_000;

/// Calls a function; `now` is the time, in seconds since 1970.
pub(super) fn call(function: Function, args: &Args, now: u64, meter: &Meter) -> Outcome<Value> {
    match function {
        Function::Range => range(args),
        Function::Dict => dict(args, meter),
        Function::Namespace => {
            let namespace = Mutex::new(Vec::new());
            let given = match &args.values[..] {
                [] => Vec::new(),
                [given] => collections::entries(given, meter)?,
                _ => return Err(Fault::new("namespace: takes one value at most")),
            };
            for (key, value) in given {
                set_attribute(&namespace, &text(&key, "namespace")?.into(), value)?;
            }
            for (name, value) in &args.named {
                set_attribute(&namespace, name, value.clone())?;
            }
            Ok(Value::Namespace(Arc::new(namespace)))
        }
        Function::RaiseException => {
            let [message] = args.of("raise_exception", ["message"])?;
            let message = message.ok_or_else(|| Fault::new("raise_exception: takes a message"))?;
            Err(Fault::new(repr::text(message, meter)?))
        }
        Function::StrftimeNow => {
            let [format] = args.of("strftime_now", ["format"])?;
            let format = format.ok_or_else(|| Fault::new("strftime_now: takes a format"))?;
            Ok(Value::text(clock::strftime(now, text(format, "strftime_now")?)?))
        }
    }
}

fn range(args: &Args) -> Outcome<Value> {
    let numbers = args.unnamed("range")?.iter().map(|value| match value {
        Value::Undefined(what) => Err(Fault::new(what.to_string())),
        value => integer(value, "range"),
    });
    let numbers: Vec<i128> = numbers.collect::<Outcome<_>>()?;
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => return Err(Fault::new("range: takes one to three integers")),
    };
    if step == 0 {
        return Err(Fault::new("range: the third argument must not be zero"));
    }
    // No sum or difference of them overflows.
    const LARGE: i128 = 1 << 100;
    if [start, stop, step].iter().any(|number| number.abs() > LARGE) {
        return Err(Fault::unsupported("a range of so large numbers"));
    }
    let range = Range { start, stop, step };
    if range.len() > MAX_RANGE {
        return Err(Fault::new(format!("range: has more than {MAX_RANGE} elements")));
    }
    Ok(Value::Range(Arc::new(range)))
}

/// `dict(...)`.
pub(super) fn dict(args: &Args, meter: &Meter) -> Outcome<Value> {
    let mut entries = Vec::new();
    match &args.values[..] {
        [] => {}
        [given] => entries = collections::entries(given, meter)?,
        _ => return Err(Fault::new("dict: takes one value at most")),
    }
    for (name, value) in &args.named {
        collections::insert(&mut entries, Value::text(Arc::clone(name)), value.clone(), meter)?;
    }
    Value::dict(entries)
}
