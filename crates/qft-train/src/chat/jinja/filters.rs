//! Filters.

mod choosing;
mod numbers;
mod sequences;
mod texts;

use super::args::{Args, needed, text};
use super::attributes;
use super::fault::{Fault, Outcome};
use super::iterate;
use super::json;
use super::repr;
use super::run::Run;
use super::unicode::escaped;
use super::value::Value;

/// Filters of Jinja2 that no chat template needs.
const UNSUPPORTED: [&str; 6] =
    ["filesizeformat", "pprint", "random", "urlize", "wordwrap", "xmlattr"];

/// All other filters of Jinja2.
const SUPPORTED: [&str; 48] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "striptags",
];

/// Whether Jinja2 has a filter of this name.
pub(super) fn is_known(name: &str) -> bool {
    SUPPORTED.contains(&name) || UNSUPPORTED.contains(&name)
}

/// Applies a filter.
///
/// Errors: there is none of the name; it is not supported; what the filter says.
pub(super) fn apply(run: &mut Run<'_>, name: &str, of: &Value, args: &Args) -> Outcome<Value> {
    run.meter.steps(1)?;
    match name {
        "attr" => {
            let [attribute] = args.of(name, ["name"])?;
            let attribute = text(needed(attribute, name)?, name)?;
            let found = attributes::own(run, of, attribute)?;
            Ok(found.unwrap_or_else(|| Value::undefined(format!("no attribute {attribute}"))))
        }
        "d" | "default" => {
            let [default, boolean] = args.of(name, ["default_value", "boolean"])?;
            let boolean = boolean.is_some_and(Value::is_true);
            let missing = matches!(of, Value::Undefined(_)) || (boolean && !of.is_true());
            Ok(match (missing, default) {
                (false, _) => of.clone(),
                (true, Some(default)) => default.clone(),
                (true, None) => Value::text(""),
            })
        }
        "length" | "count" => {
            let [] = args.of(name, [])?;
            if let Value::Text(text) = of {
                run.meter.bytes(text.text.len())?;
            }
            let length = iterate::length(of).map(Value::count);
            length.ok_or_else(|| Fault::new(format!("object of type '{}' has no len()", of.kind())))
        }
        "tojson" => json::dumps(of, args, &run.meter),
        "safe" | "string" => {
            let [] = args.of(name, [])?;
            match of {
                Value::Text(text) => {
                    Ok(Value::marked(text.text.clone(), text.markup || name == "safe"))
                }
                of => Ok(Value::marked(repr::text(of, &run.meter)?, name == "safe")),
            }
        }
        "e" | "escape" | "forceescape" => {
            let [] = args.of(name, [])?;
            let whole = repr::text(of, &run.meter)?;
            run.meter.bytes(whole.len() * 6)?;
            match of {
                Value::Text(text) if text.markup && name != "forceescape" => Ok(of.clone()),
                _ => Ok(Value::marked(escaped(&whole), true)),
            }
        }
        "abs" | "float" | "int" | "round" | "sum" => numbers::apply(run, name, of, args),
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
            choosing::apply(run, name, of, args)
        }
        "batch" | "dictsort" | "first" | "groupby" | "items" | "join" | "last" | "list" | "max"
        | "min" | "reverse" | "slice" | "sort" | "unique" => sequences::apply(run, name, of, args),
        name if UNSUPPORTED.contains(&name) => {
            Err(Fault::unsupported(format!("the filter {name}")))
        }
        name if SUPPORTED.contains(&name) => texts::apply(run, name, of, args),
        name => Err(Fault::new(format!("no filter named '{name}'"))),
    }
}

/// A text in small letters; other values as they are.
fn ignoring_case(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::text(text.text.to_lowercase()),
        value => value,
    }
}
