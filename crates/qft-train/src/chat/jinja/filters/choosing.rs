//! Filters that go through elements with a filter or a test.

use super::super::args::{Args, needed, text};
use super::super::attributes;
use super::super::fault::{Fault, Outcome};
use super::super::iterate;
use super::super::run::Run;
use super::super::tests;
use super::super::value::Value;

pub(super) fn apply(run: &mut Run<'_>, name: &str, of: &Value, args: &Args) -> Outcome<Value> {
    // Whatever it is.
    if !of.is_true() {
        return Ok(Value::once("generator", []));
    }
    let items = iterate::elements(of, &run.meter)?;
    let mut made = Vec::new();
    if name == "map" {
        for item in items {
            made.push(mapped(run, &item, args)?);
        }
        return Ok(Value::once("generator", made));
    }
    let with_attribute = name.ends_with("attr");
    let (attribute, rest) = match (with_attribute, &args.values[..]) {
        (true, [attribute, rest @ ..]) => (Some(attribute), rest),
        (true, []) => return Err(Fault::new("Missing parameter for attribute name")),
        (false, rest) => (None, rest),
    };
    let test = match rest.first() {
        Some(test) => Some(text(test, name)?),
        None => None,
    };
    let rest =
        Args { values: rest.get(1..).unwrap_or_default().to_vec(), named: args.named.clone() };
    for item in items {
        run.meter.steps(1)?;
        let looked_at = match attribute {
            Some(attribute) => attributes::path(run, &item, attribute, None)?,
            None => item.clone(),
        };
        let holds = match test {
            Some(test) => tests::holds(run, test, &looked_at, &rest)?,
            None => looked_at.is_true(),
        };
        if holds == name.starts_with("select") {
            made.push(item);
        }
    }
    Ok(Value::once("generator", made))
}

fn mapped(run: &mut Run<'_>, item: &Value, args: &Args) -> Outcome<Value> {
    run.meter.steps(1)?;
    if args.values.is_empty() {
        if let Some((name, _)) =
            args.named.iter().find(|(name, _)| !["attribute", "default"].contains(&&**name))
        {
            return Err(Fault::new(format!("Unexpected keyword argument '{name}'")));
        }
        let [attribute, default] = args.of("map", ["attribute", "default"])?;
        let attribute = needed(attribute, "map")?;
        return attributes::path(
            run,
            item,
            attribute,
            default.filter(|d| !matches!(d, Value::None)),
        );
    }
    let filter = text(&args.values[0], "map")?.to_string();
    let rest = Args { values: args.values[1..].to_vec(), named: args.named.clone() };
    super::apply(run, &filter, item, &rest)
}
