//! Lists, tuples and dictionaries: their methods, and how dictionaries are made.

use super::args::{Args, integer, needed};
use super::compare;
use super::fault::{Fault, Meter, Outcome};
use super::iterate;
use super::value::{Dict, Value, View};

/// The value of a key.
pub(super) fn find(dict: &Dict, key: &Value, meter: &Meter) -> Outcome<Option<Value>> {
    if let Some(text) = key.as_text() {
        meter.bytes(16 * dict.entries.len())?;
        return Ok(dict.text(text).cloned());
    }
    for (known, value) in &dict.entries {
        if compare::equal(known, key, meter)? {
            return Ok(Some(value.clone()));
        }
    }
    Ok(None)
}

/// Sets the value of a key among entries.
///
/// Errors: the key can be none.
pub(super) fn insert(
    entries: &mut Vec<(Value, Value)>,
    key: Value,
    value: Value,
    meter: &Meter,
) -> Outcome<()> {
    if !compare::is_key(&key) {
        return Err(Fault::new(format!("unhashable type: '{}'", key.kind())));
    }
    meter.steps(1)?;
    for (known, old) in entries.iter_mut() {
        let same = match (known.as_text(), key.as_text()) {
            (Some(known), Some(key)) => known == key,
            _ => compare::equal(known, &key, meter)?,
        };
        if same {
            *old = value;
            return Ok(());
        }
    }
    meter.bytes(16 * entries.len())?;
    entries.push((key, value));
    Ok(())
}

/// The entries of a dictionary that is made from another one, or from pairs.
pub(super) fn entries(given: &Value, meter: &Meter) -> Outcome<Vec<(Value, Value)>> {
    if let Value::Dict(dict) = given {
        meter.steps(dict.entries.len())?;
        return Ok(dict.entries.clone());
    }
    let mut entries = Vec::new();
    for pair in iterate::elements(given, meter)? {
        let [key, value] = &iterate::elements(&pair, meter)?[..] else {
            return Err(Fault::new("a dictionary is made from pairs"));
        };
        insert(&mut entries, key.clone(), value.clone(), meter)?;
    }
    Ok(entries)
}

/// Calls a method of a list, tuple or dictionary.
pub(super) fn call(of: &Value, name: &'static str, args: &Args, meter: &Meter) -> Outcome<Value> {
    match (of, name) {
        (Value::Dict(dict), "get") => {
            let [key, default] = args.up_to("get")?;
            let key = needed(key, "get")?;
            if !compare::is_key(key) {
                return Err(Fault::new(format!("unhashable type: '{}'", key.kind())));
            }
            let found = find(dict, key, meter)?;
            Ok(found.or_else(|| default.cloned()).unwrap_or(Value::None))
        }
        (Value::Dict(dict), "items" | "keys" | "values") => {
            let [] = args.up_to(name)?;
            let view = match name {
                "items" => View::Items,
                "keys" => View::Keys,
                _ => View::Values,
            };
            Ok(Value::View(view, dict.clone()))
        }
        (Value::Dict(_) | Value::List(_), "copy") => {
            let [] = args.up_to(name)?;
            Ok(of.clone())
        }
        (Value::List(items) | Value::Tuple(items) | Value::Group(items), "count") => {
            let [value] = args.up_to(name)?;
            let value = needed(value, name)?;
            let mut count = 0;
            for item in &items.items {
                count += usize::from(compare::equal(item, value, meter)?);
            }
            Ok(Value::count(count))
        }
        (Value::List(items) | Value::Tuple(items) | Value::Group(items), "index") => {
            let [value, start, stop] = args.up_to(name)?;
            let value = needed(value, name)?;
            let len = items.items.len();
            let bound = |given: Option<&Value>, default: usize| -> Outcome<usize> {
                let Some(given) = given else { return Ok(default) };
                let place = integer(given, name)?;
                let place = if place < 0 { place.saturating_add(len as i128) } else { place };
                Ok(place.clamp(0, len as i128) as usize)
            };
            let (start, stop) = (bound(start, 0)?, bound(stop, len)?);
            for place in start..stop {
                if compare::equal(&items.items[place], value, meter)? {
                    return Ok(Value::count(place));
                }
            }
            Err(Fault::new("index: the list has no such value"))
        }
        (of, name) => Err(Fault::unsupported(format!("the method {name} of {}", of.kind()))),
    }
}
