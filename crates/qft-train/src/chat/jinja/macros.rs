//! Macros and their callers.

use super::args::Args;
use super::expressions;
use super::fault::{Fault, Outcome};
use super::run::Run;
use super::value::Value;
use std::sync::Arc;

impl Run<'_> {
    /// Calls a macro that was defined in the frame `around`: what it writes.
    pub(super) fn call_macro(
        &mut self,
        number: usize,
        around: usize,
        mut args: Args,
    ) -> Outcome<Value> {
        let code = &self.tree.macros[number];
        let names = &self.tree.names;
        let [reads_caller, reads_kwargs, reads_varargs] = code.reads;
        let title = names.text(code.name);
        let mut given: Vec<Option<Value>> = Vec::new();
        let rest = args.values.split_off(args.values.len().min(code.parameters.len()));
        given.extend(args.values.drain(..).map(Some));
        for &parameter in &code.parameters[given.len()..] {
            given.push(take(&mut args, names.text(parameter)));
        }
        let caller = if reads_caller { Some(take(&mut args, "caller")) } else { None };
        if let (Some((name, _)), false) = (args.named.first(), reads_kwargs) {
            return Err(Fault::new(format!("macro {title}: takes no argument `{name}`")));
        }
        if !rest.is_empty() && !reads_varargs {
            return Err(Fault::new(format!(
                "macro {title}: takes {} arguments at most",
                code.parameters.len()
            )));
        }
        let without_default = code.parameters.len() - code.defaults.len();
        let ((), text) = self.captured_with(around, |run| {
            if let Some(caller) = caller {
                let caller = caller.unwrap_or_else(|| Value::undefined("no caller defined"));
                run.set_extra("caller", caller);
            }
            if reads_kwargs {
                let kwargs = args.named.into_iter();
                let kwargs = kwargs.map(|(name, value)| (Value::text(name), value)).collect();
                run.set_extra("kwargs", Value::dict(kwargs)?);
            }
            if reads_varargs {
                run.set_extra("varargs", Value::tuple(rest)?);
            }
            for (i, (&parameter, value)) in code.parameters.iter().zip(given).enumerate() {
                let value = match (value, i.checked_sub(without_default)) {
                    (Some(value), _) => value,
                    (None, Some(default)) => expressions::value(run, &code.defaults[default])?,
                    (None, None) => Value::undefined(format!(
                        "parameter '{}' was not provided",
                        names.text(parameter)
                    )),
                };
                run.set(parameter, value);
            }
            run.body(&code.body).map(drop)
        })?;
        Ok(text)
    }

    fn set_extra(&mut self, name: &str, value: Value) {
        if let Some(name) = self.tree.names.known(name) {
            self.set(name, value);
        }
    }

    /// An attribute of a macro.
    pub(super) fn macro_attribute(&self, number: usize, name: &str) -> Outcome<Value> {
        let code = &self.tree.macros[number];
        let names = &self.tree.names;
        Ok(match name {
            "name" => Value::text(names.text(code.name)),
            "arguments" => {
                let arguments = code.parameters.iter().map(|&name| Value::text(names.text(name)));
                Value::tuple(arguments.collect())?
            }
            "caller" => Value::Bool(code.reads[0]),
            "catch_kwargs" => Value::Bool(code.reads[1]),
            "catch_varargs" => Value::Bool(code.reads[2]),
            name => Value::undefined(format!("'Macro' has no attribute '{name}'")),
        })
    }
}

/// Takes the argument of a name out.
fn take(args: &mut Args, name: &str) -> Option<Value> {
    let place = args.named.iter().position(|(known, _): &(Arc<str>, Value)| **known == *name)?;
    Some(args.named.remove(place).1)
}
