//! Expressions.

use super::args::Args;
use super::fault::{Fault, Outcome};
use super::run::Run;
use super::tree::{Arguments, Call, Expression};
use super::value::Value;
use super::{arithmetic, attributes, collections, compare, filters, functions, iterate, tests};
use super::{repr, text_methods};
use std::sync::Arc;

/// The value of an expression.
pub(super) fn value<'t>(run: &mut Run<'t>, expression: &'t Expression) -> Outcome<Value> {
    run.meter.enter()?;
    let value = inner(run, expression);
    run.meter.leave();
    value
}

fn inner<'t>(run: &mut Run<'t>, expression: &'t Expression) -> Outcome<Value> {
    Ok(match expression {
        Expression::Constant(value) => value.clone(),
        Expression::Variable(name) => run.variable(*name)?,
        Expression::Captured => run.captured.last().cloned().unwrap_or(Value::None),
        Expression::List(items) => Value::list(values(run, items)?)?,
        Expression::Tuple(items) => Value::tuple(values(run, items)?)?,
        Expression::Dict(entries) => {
            let mut dict = Vec::new();
            for (key, entry) in entries {
                let (key, entry) = (value(run, key)?, value(run, entry)?);
                collections::insert(&mut dict, key, entry, &run.meter)?;
            }
            Value::dict(dict)?
        }
        Expression::Not(of) => Value::Bool(!value(run, of)?.is_true()),
        Expression::Negate(of) => arithmetic::negate(&value(run, of)?)?,
        Expression::And(pair) => {
            let first = value(run, &pair[0])?;
            if first.is_true() { value(run, &pair[1])? } else { first }
        }
        Expression::Or(pair) => {
            let first = value(run, &pair[0])?;
            if first.is_true() { first } else { value(run, &pair[1])? }
        }
        Expression::If(pair, no) => {
            if value(run, &pair[0])?.is_true() {
                return value(run, &pair[1]);
            }
            match no {
                Some(no) => value(run, no)?,
                None => Value::undefined("the inline if-expression has no else"),
            }
        }
        Expression::Operate(operator, pair) => {
            let (a, b) = (value(run, &pair[0])?, value(run, &pair[1])?);
            arithmetic::operate(*operator, &a, &b, &run.meter)?
        }
        Expression::Compare(first, rest) => return comparison(run, first, rest),
        Expression::Attribute(of, name) => {
            let of = value(run, of)?;
            attributes::attribute(run, &of, name)?
        }
        Expression::Item(pair) => {
            let (of, key) = (value(run, &pair[0])?, value(run, &pair[1])?);
            attributes::item(run, &of, &key)?
        }
        Expression::Slice(of, parts) => {
            let of = value(run, of)?;
            let mut part = |part: &'t Option<Box<Expression>>| match part {
                Some(part) => value(run, part),
                None => Ok(Value::None),
            };
            let parts = [part(&parts[0])?, part(&parts[1])?, part(&parts[2])?];
            iterate::slice(&of, &parts, &run.meter)?
        }
        Expression::Call(of) => call(run, of, None)?,
        Expression::Filter(name, of, given) => {
            let of = value(run, of)?;
            let args = arguments(run, given)?;
            filters::apply(run, name, &of, &args)?
        }
        Expression::Test(name, of, given) => {
            let of = value(run, of)?;
            let args = arguments(run, given)?;
            Value::Bool(tests::holds(run, name, &of, &args)?)
        }
    })
}

fn values<'t>(run: &mut Run<'t>, items: &'t [Expression]) -> Outcome<Vec<Value>> {
    items.iter().map(|item| value(run, item)).collect()
}

fn comparison<'t>(
    run: &mut Run<'t>,
    first: &'t Expression,
    rest: &'t [(super::tree::Comparison, Expression)],
) -> Outcome<Value> {
    let mut left = value(run, first)?;
    for (how, right) in rest {
        let right = value(run, right)?;
        if !compare::holds(*how, &left, &right, &run.meter)? {
            return Ok(Value::Bool(false));
        }
        left = right;
    }
    Ok(Value::Bool(true))
}

fn arguments<'t>(run: &mut Run<'t>, given: &'t Arguments) -> Outcome<Args> {
    let mut args = Args::default();
    for (spread, expression) in &given.values {
        let value = value(run, expression)?;
        match spread {
            true => args.values.extend(iterate::elements(&value, &run.meter)?),
            false => args.values.push(value),
        }
    }
    for (name, expression) in &given.named {
        let value = value(run, expression)?;
        let Some(name) = name else {
            spread(&mut args, &value)?;
            continue;
        };
        args.named.push((Arc::clone(name), value));
    }
    Ok(args)
}

/// `**value`.
fn spread(args: &mut Args, value: &Value) -> Outcome<()> {
    let Value::Dict(dict) = value else {
        return Err(Fault::new("what follows ** must be a mapping"));
    };
    for (key, value) in &dict.entries {
        let Value::Text(name) = key else {
            return Err(Fault::new("keywords must be strings"));
        };
        if args.named.iter().any(|(known, _)| *known == name.text) {
            return Err(Fault::new(format!("the argument {} is given twice", name.text)));
        }
        args.named.push((Arc::clone(&name.text), value.clone()));
    }
    Ok(())
}

/// Calls something, with `caller` if it is a block.
pub(super) fn call<'t>(run: &mut Run<'t>, call: &'t Call, caller: Option<Value>) -> Outcome<Value> {
    let callee = value(run, &call.callee)?;
    let mut args = arguments(run, &call.arguments)?;
    if let Some(caller) = caller {
        args.named.push(("caller".into(), caller));
    }
    match callee {
        Value::Macro(number, around) => run.call_macro(number, around, args),
        Value::Loop(this) => run.recurse(&this, &args),
        Value::Function(function) => functions::call(function, &args, run.now, &run.meter),
        Value::Method(method) => self::method(run, &method.0, method.1, &args),
        Value::Undefined(what) => Err(Fault::new(what.to_string())),
        other => Err(Fault::new(format!("'{}' object is not callable", other.kind()))),
    }
}

fn method(run: &mut Run<'_>, of: &Value, name: &'static str, args: &Args) -> Outcome<Value> {
    match of {
        Value::Text(text) => text_methods::call(run, text, name, args),
        Value::Loop(this) => run.loop_method(this, name, args),
        of => collections::call(of, name, args, &run.meter),
    }
}

/// The text of a value, as `str` makes it; that of a text keeps its mark.
pub(super) fn as_text(run: &Run<'_>, value: &Value) -> Outcome<super::value::Text> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        value => {
            Ok(super::value::Text { text: repr::text(value, &run.meter)?.into(), markup: false })
        }
    }
}
