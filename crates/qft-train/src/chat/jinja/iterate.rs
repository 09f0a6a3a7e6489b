//! Going through values, and parts of them.

use super::fault::{Fault, Meter, Outcome};
use super::value::{Once, Value, View};

/// The elements of a value; an iterator is used up.
///
/// Errors: it has none.
pub(super) fn elements(value: &Value, meter: &Meter) -> Outcome<Vec<Value>> {
    meter.steps(length(value).unwrap_or(0))?;
    Ok(match value {
        Value::Undefined(_) => Vec::new(),
        Value::Text(text) => {
            text.text.chars().map(|c| Value::marked(c.to_string(), false)).collect()
        }
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => items.items.clone(),
        Value::Dict(dict) | Value::View(View::Keys, dict) => {
            dict.entries.iter().map(|(key, _)| key.clone()).collect()
        }
        Value::View(View::Values, dict) => {
            dict.entries.iter().map(|(_, value)| value.clone()).collect()
        }
        Value::View(View::Items, dict) => {
            let pair =
                |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
            dict.entries.iter().map(pair).collect::<Outcome<_>>()?
        }
        Value::Range(range) => (0..range.len()).map(|index| range.get(index)).collect(),
        Value::Iterator(once) => {
            let mut elements = Vec::new();
            while let Some(element) = next(once)? {
                meter.steps(1)?;
                elements.push(element);
            }
            elements
        }
        Value::Loop(_) => return Err(Fault::unsupported("going through the variable `loop`")),
        other => return Err(not_iterable(other)),
    })
}

fn not_iterable(value: &Value) -> Fault {
    Fault::new(format!("'{}' object is not iterable", value.kind()))
}

/// The next element of an iterator.
pub(super) fn next(once: &Once) -> Outcome<Option<Value>> {
    let mut left = once.left.lock().map_err(|_| Fault::new("an iterator is in use"))?;
    Ok(left.pop_front())
}

/// How many elements a value has, if it has a length.
pub(super) fn length(value: &Value) -> Option<usize> {
    match value {
        Value::Undefined(_) => Some(0),
        Value::Text(text) => Some(text.text.chars().count()),
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => Some(items.items.len()),
        Value::Dict(dict) | Value::View(_, dict) => Some(dict.entries.len()),
        Value::Range(range) => Some(range.len()),
        _ => None,
    }
}

/// `of[start:stop:step]`.
pub(super) fn slice(of: &Value, parts: &[Value; 3], meter: &Meter) -> Outcome<Value> {
    if let Value::Undefined(what) = of {
        return Err(Fault::new(what.to_string()));
    }
    let len = match of {
        Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Group(_) => length(of),
        Value::Range(_) => return Err(Fault::unsupported("a part of a range")),
        _ => None,
    };
    let len = len.ok_or_else(|| Fault::new(format!("'{}' object has no parts", of.kind())))?;
    meter.steps(len)?;
    let part = parts.iter().map(index).collect::<Option<Vec<_>>>();
    let part = part.ok_or_else(|| Fault::new("slice indices must be integers or None"))?;
    let places = places(len, part[0], part[1], part[2].unwrap_or(1))?;
    Ok(match of {
        Value::Text(text) => {
            let chars: Vec<char> = text.text.chars().collect();
            let part: String = places.into_iter().map(|place| chars[place]).collect();
            Value::marked(part, text.markup)
        }
        Value::List(items) => {
            Value::list(places.into_iter().map(|place| items.items[place].clone()).collect())?
        }
        Value::Tuple(items) | Value::Group(items) => {
            Value::tuple(places.into_iter().map(|place| items.items[place].clone()).collect())?
        }
        _ => Value::None,
    })
}

/// A bound of a slice; none in a slice without one. The outer none: it is no integer.
fn index(value: &Value) -> Option<Option<i128>> {
    match value {
        Value::None => Some(None),
        value => value.as_int().map(Some),
    }
}

/// The places of a slice, in its order.
fn places(len: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> Outcome<Vec<usize>> {
    if step == 0 {
        return Err(Fault::new("slice step cannot be zero"));
    }
    let len = len as i128;
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |bound: Option<i128>, default: i128| match bound {
        Some(bound) if bound < 0 => bound.saturating_add(len).max(lowest),
        Some(bound) => bound.min(highest),
        None => default,
    };
    let (start, stop) = match step > 0 {
        true => (bound(start, 0), bound(stop, len)),
        false => (bound(start, len - 1), bound(stop, -1)),
    };
    let mut places = Vec::new();
    let mut place = start;
    while if step > 0 { place < stop } else { place > stop } {
        places.push(place as usize);
        place = place.saturating_add(step);
    }
    Ok(places)
}
