//! Filters of lists and mappings.

use super::super::args::{Args, needed, text};
use super::super::attributes::{self, list};
use super::super::compare;
use super::super::fault::{Fault, Outcome};
use super::super::iterate;
use super::super::repr;
use super::super::run::Run;
use super::super::value::{Items, Value};
use super::ignoring_case;
use super::numbers::count;
use std::cmp::Ordering;

pub(super) fn apply(run: &mut Run<'_>, name: &str, of: &Value, args: &Args) -> Outcome<Value> {
    match name {
        "batch" => batch(run, of, args),
        "slice" => slice(run, of, args),
        "dictsort" => dictsort(run, of, args),
        "groupby" => groupby(run, of, args),
        "join" => join(run, of, args),
        "max" | "min" => extreme(run, name, of, args),
        "sort" => {
            let [reverse, case, attribute] =
                args.of(name, ["reverse", "case_sensitive", "attribute"])?;
            let reverse = reverse.is_some_and(Value::is_true);
            let items = list(run, of)?;
            let keyed = items.into_iter().map(|item| {
                let keys = attributes::paths(run, &item, attribute.unwrap_or(&Value::None))?;
                let keys = keys.into_iter().map(|key| fold(key, case)).collect();
                Ok((keys, item))
            });
            let keyed = keyed.collect::<Outcome<_>>()?;
            Value::list(
                sorted(run, keyed, reverse, in_order)?.into_iter().map(|(_, item)| item).collect(),
            )
        }
        "unique" => {
            let [case, attribute] = args.of(name, ["case_sensitive", "attribute"])?;
            unique(run, of, case, attribute)
        }
        name => {
            let [] = args.of(name, [])?;
            plain(run, name, of)
        }
    }
}

/// Filters without arguments.
fn plain(run: &mut Run<'_>, name: &str, of: &Value) -> Outcome<Value> {
    match name {
        "first" => {
            let first = match of {
                Value::Iterator(once) => iterate::next(once)?,
                of => list(run, of)?.into_iter().next(),
            };
            Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
        }
        "last" => {
            if let Value::Iterator(_) = of {
                return Err(Fault::new("the filter last takes no iterator; make a list of it"));
            }
            let last = list(run, of)?.pop();
            Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
        }
        "items" => match of {
            Value::Undefined(_) => Ok(Value::once("generator", [])),
            Value::Dict(dict) => {
                let pair =
                    |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
                let pairs: Vec<Value> = dict.entries.iter().map(pair).collect::<Outcome<_>>()?;
                Ok(Value::once("generator", pairs))
            }
            _ => Err(Fault::new("Can only get item pairs from a mapping.")),
        },
        "reverse" => {
            if let Value::Text(text) = of {
                run.meter.bytes(text.text.len())?;
                let reversed: String = text.text.chars().rev().collect();
                return Ok(Value::marked(reversed, text.markup));
            }
            let mut items = list(run, of)?;
            items.reverse();
            match of {
                Value::Iterator(_) => Value::list(items),
                _ => Ok(Value::once("list_reverseiterator", items)),
            }
        }
        _ => Value::list(list(run, of)?),
    }
}

fn fold(key: Value, case: Option<&Value>) -> Value {
    if case.is_some_and(Value::is_true) { key } else { ignoring_case(key) }
}

/// Elements in the order of their keys.
fn sorted(
    run: &Run<'_>,
    mut keyed: Vec<(Vec<Value>, Value)>,
    reverse: bool,
    order: fn(&Run<'_>, &[Value], &[Value]) -> Outcome<Ordering>,
) -> Outcome<Vec<(Vec<Value>, Value)>> {
    let mut fault = None;
    let mut compare = |a: &[Value], b: &[Value]| -> Ordering {
        let result = order(run, a, b);
        result.unwrap_or_else(|wrong| {
            fault.get_or_insert(wrong);
            Ordering::Equal
        })
    };
    // Both ways, equal ones keep their order.
    match reverse {
        true => keyed.sort_by(|(a, _), (b, _)| compare(b, a)),
        false => keyed.sort_by(|(a, _), (b, _)| compare(a, b)),
    }
    fault.map_or(Ok(keyed), Err)
}

/// The order of lists of keys: equal ones need no order.
fn in_order(run: &Run<'_>, a: &[Value], b: &[Value]) -> Outcome<Ordering> {
    for (a, b) in a.iter().zip(b) {
        if !compare::equal(a, b, &run.meter)? {
            return by_key(run, std::slice::from_ref(a), std::slice::from_ref(b));
        }
    }
    Ok(Ordering::Equal)
}

/// The order of single keys, which each must have one.
fn by_key(run: &Run<'_>, a: &[Value], b: &[Value]) -> Outcome<Ordering> {
    let order = compare::order(&a[0], &b[0], "<", &run.meter)?;
    order.ok_or_else(|| Fault::unsupported("sorting what is not a number"))
}

fn unique(
    run: &mut Run<'_>,
    of: &Value,
    case: Option<&Value>,
    attribute: Option<&Value>,
) -> Outcome<Value> {
    let mut seen: Vec<(Value, Value)> = Vec::new();
    let mut kept = Vec::new();
    for item in list(run, of)? {
        let key = attributes::path(run, &item, attribute.unwrap_or(&Value::None), None)?;
        let key = fold(key, case);
        let before = seen.len();
        super::super::collections::insert(&mut seen, key, Value::None, &run.meter)?;
        run.meter.steps(seen.len() / 8)?;
        if seen.len() > before {
            kept.push(item);
        }
    }
    Ok(Value::once("generator", kept))
}

fn extreme(run: &mut Run<'_>, name: &str, of: &Value, args: &Args) -> Outcome<Value> {
    let [case, attribute] = args.of(name, ["case_sensitive", "attribute"])?;
    let mut best: Option<(Value, Value)> = None;
    for item in list(run, of)? {
        let key = attributes::path(run, &item, attribute.unwrap_or(&Value::None), None)?;
        let key = fold(key, case);
        let better = match &best {
            None => true,
            Some((best, _)) => {
                let (sign, wanted) = match name {
                    "max" => (">", Ordering::Greater),
                    _ => ("<", Ordering::Less),
                };
                compare::order(&key, best, sign, &run.meter)? == Some(wanted)
            }
        };
        if better {
            best = Some((key, item));
        }
    }
    let best = best.map(|(_, item)| item);
    Ok(best.unwrap_or_else(|| Value::undefined("No aggregated item, sequence was empty.")))
}

fn batch(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let [size, fill] = args.of("batch", ["linecount", "fill_with"])?;
    let size = count(size, "batch")?;
    let size = usize::try_from(size).ok().filter(|&size| size > 0);
    let size =
        size.ok_or_else(|| Fault::unsupported("the filter batch with no elements to a line"))?;
    let items = list(run, of)?;
    let mut lines = Vec::new();
    for line in items.chunks(size) {
        let mut line = line.to_vec();
        if let Some(fill) = fill.filter(|fill| !matches!(fill, Value::None)) {
            run.meter.steps(size)?;
            line.resize(size, fill.clone());
        }
        lines.push(Value::list(line)?);
    }
    Ok(Value::once("generator", lines))
}

fn slice(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let [slices, fill] = args.of("slice", ["slices", "fill_with"])?;
    let slices = count(slices, "slice")?;
    let slices = usize::try_from(slices).ok().filter(|&slices| slices > 0);
    let slices = slices.ok_or_else(|| Fault::new("the filter slice makes one slice at least"))?;
    run.meter.steps(slices)?;
    let items = list(run, of)?;
    let (each, longer) = (items.len() / slices, items.len() % slices);
    let mut rest = items.into_iter();
    let mut made = Vec::new();
    for number in 0..slices {
        let mut slice: Vec<Value> =
            rest.by_ref().take(each + usize::from(number < longer)).collect();
        if let Some(fill) = fill.filter(|fill| !matches!(fill, Value::None) && number >= longer) {
            slice.push(fill.clone());
        }
        made.push(Value::list(slice)?);
    }
    Ok(Value::once("generator", made))
}

fn dictsort(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let [case, by, reverse] = args.of("dictsort", ["case_sensitive", "by", "reverse"])?;
    let by_value = match by.map_or(Ok("key"), |by| text(by, "dictsort"))? {
        "key" => false,
        "value" => true,
        _ => return Err(Fault::new("You can only sort by either \"key\" or \"value\"")),
    };
    let Value::Dict(dict) = of else {
        return Err(Fault::new(format!("'{}' object has no items", of.kind())));
    };
    let keyed = dict.entries.iter().map(|(key, value)| {
        let by = if by_value { value } else { key }.clone();
        Ok((vec![fold(by, case)], Value::tuple(vec![key.clone(), value.clone()])?))
    });
    let keyed = keyed.collect::<Outcome<_>>()?;
    let sorted = sorted(run, keyed, reverse.is_some_and(Value::is_true), by_key)?;
    Value::list(sorted.into_iter().map(|(_, item)| item).collect())
}

fn groupby(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let parameters = ["attribute", "default", "case_sensitive"];
    let [attribute, default, case] = args.of("groupby", parameters)?;
    let attribute = needed(attribute, "groupby")?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let mut keyed = Vec::new();
    for item in list(run, of)? {
        let key = attributes::path(run, &item, attribute, default)?;
        keyed.push((vec![fold(key.clone(), case), key], item));
    }
    // By the first key alone.
    let firsts = keyed.iter().map(|(keys, _)| keys[0].clone());
    let places: Vec<_> = firsts.enumerate().map(|(i, key)| (vec![key], Value::count(i))).collect();
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (key, place) in sorted(run, places, false, by_key)? {
        let place = place.as_int().unwrap_or(0) as usize;
        let (keys, item) = &keyed[place];
        match groups.last_mut() {
            Some((last, _, items)) if compare::equal(last, &key[0], &run.meter)? => {
                items.push(item.clone());
            }
            _ => groups.push((key[0].clone(), keys[1].clone(), vec![item.clone()])),
        }
    }
    let groups = groups.into_iter().map(|(_, grouper, items)| Items::group(grouper, items));
    Value::list(groups.collect::<Outcome<_>>()?)
}

fn join(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let [separator, attribute] = args.of("join", ["d", "attribute"])?;
    let separator = match separator {
        Some(separator) => repr::text(separator, &run.meter)?,
        None => String::new(),
    };
    let mut out = String::new();
    for (i, item) in list(run, of)?.into_iter().enumerate() {
        let item = match attribute {
            None | Some(Value::None) => item,
            Some(path) => attributes::path(run, &item, path, None)?,
        };
        if i > 0 {
            run.meter.bytes(separator.len())?;
            out.push_str(&separator);
        }
        out.push_str(&repr::text(&item, &run.meter)?);
    }
    Ok(Value::text(out))
}
