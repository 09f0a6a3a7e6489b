//! The engine, set up so that templates run in it as in Jinja2 under `transformers`.

use super::{Conversation, TEMPLATE, fuel, guard, methods, python};
use crate::error::{Context, Result, ensure};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, State, Value};
use minijinja_contrib::filters;

/// Names that Jinja2 gives a meaning to and the engine does not: a template that reads them would find nothing there.
const UNKNOWN: [&str; 2] = ["varargs", "kwargs"];

/// Compiles `source`; `name` is what errors call it, `now` the time that it is told, in seconds since 1970.
///
/// Errors: it is not a valid template, or reads what the engine does not know.
pub(super) fn compile(name: &str, source: String, now: u64) -> Result<Environment<'static>> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    guard::install(&mut env);
    env.set_unknown_method_callback(methods::call);
    // Not as Python's.
    env.remove_filter("pprint");
    env.add_filter("tojson", python::to_json);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("truncate", filters::truncate);
    env.add_filter("striptags", filters::striptags);
    env.add_test("iterable", is_iterable);
    env.add_test("sequence", is_sequence);
    env.add_function("raise_exception", python::raise_exception);
    env.add_function("strftime_now", move |format: &str| python::strftime(now, format));
    env.set_fuel(Some(fuel::of(&Conversation::default())));
    env.add_template_owned(TEMPLATE, source)
        .with_context(|| format!("chat template {name}: is not valid Jinja"))?;
    let read = env.get_template(TEMPLATE)?.undeclared_variables(false);
    for unknown in UNKNOWN {
        ensure!(
            !read.contains(unknown),
            "chat template {name}: reads `{unknown}`, which is not supported; choose another with --template"
        );
    }
    Ok(env)
}

/// Nothing is not iterable, as in Python.
fn is_iterable(value: &Value) -> bool {
    value.kind() != ValueKind::None && value.try_iter().is_ok()
}

/// Whatever has a length and elements, in Python: also a text, and a name that nothing is defined for.
fn is_sequence(value: &Value) -> bool {
    use ValueKind::{Map, Seq, String, Undefined};
    matches!(value.kind(), Seq | String | Map | Undefined)
}

/// The filter `int`: a text that is no number gives the default.
fn int(
    state: &State,
    value: Value,
    default: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    number(state, "int", value, default, &options, Value::from(0))
}

/// The filter `float`, likewise.
fn float(
    state: &State,
    value: Value,
    default: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    number(state, "float", value, default, &options, Value::from(0.0))
}

fn number(
    state: &State,
    filter: &str,
    value: Value,
    default: Option<Value>,
    options: &Kwargs,
    zero: Value,
) -> Result<Value, Error> {
    let named = options.get::<Option<Value>>("default")?;
    options.assert_all_used()?;
    let read = guard::charged(state, filter, &[value]);
    Ok(read.unwrap_or_else(|_| default.or(named).unwrap_or(zero)))
}
