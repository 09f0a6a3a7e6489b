//! Arguments of calls.

use super::fault::{Fault, Outcome};
use super::value::Value;
use std::sync::Arc;

/// Arguments of a call, evaluated.
#[derive(Debug, Default)]
pub(super) struct Args {
    /// Those without names.
    pub(super) values: Vec<Value>,
    /// Those with names.
    pub(super) named: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// The arguments of a function that takes none by name.
    pub(super) fn unnamed(&self, function: &str) -> Outcome<&[Value]> {
        match self.named.first() {
            Some((name, _)) => Err(unknown(function, name)),
            None => Ok(&self.values),
        }
    }

    /// The arguments of a function that takes up to `N`, none by name.
    pub(super) fn up_to<const N: usize>(&self, function: &str) -> Outcome<[Option<&Value>; N]> {
        let values = self.unnamed(function)?;
        if values.len() > N {
            return Err(too_many(function, N, values.len()));
        }
        Ok(std::array::from_fn(|i| values.get(i)))
    }

    /// The arguments of a function, in the order of its parameters.
    ///
    /// Errors: too many; a name that it does not know, or twice.
    pub(super) fn of<const N: usize>(
        &self,
        function: &str,
        parameters: [&str; N],
    ) -> Outcome<[Option<&Value>; N]> {
        if self.values.len() > N {
            return Err(too_many(function, N, self.values.len()));
        }
        let mut found = std::array::from_fn(|i| self.values.get(i));
        for (name, value) in &self.named {
            let place = parameters.iter().position(|parameter| **parameter == **name);
            let place = place.ok_or_else(|| unknown(function, name))?;
            if found[place].replace(value).is_some() {
                return Err(Fault::new(format!("{function}: the argument {name} is given twice")));
            }
        }
        Ok(found)
    }
}

fn unknown(function: &str, name: &str) -> Fault {
    Fault::new(format!("{function}: has no argument `{name}`"))
}

fn too_many(function: &str, most: usize, given: usize) -> Fault {
    Fault::new(format!("{function}: takes {most} arguments at most, and is given {given}"))
}

/// An argument that must be there.
pub(super) fn needed<'a>(value: Option<&'a Value>, what: &str) -> Outcome<&'a Value> {
    value.ok_or_else(|| Fault::new(format!("{what}: an argument is missing")))
}

/// A text.
pub(super) fn text<'a>(value: &'a Value, what: &str) -> Outcome<&'a str> {
    let wrong =
        || Fault::new(format!("{what}: expected a text, found a value of type {}", value.kind()));
    value.as_text().ok_or_else(wrong)
}

/// An integer.
pub(super) fn integer(value: &Value, what: &str) -> Outcome<i128> {
    let wrong = || {
        Fault::new(format!("{what}: expected an integer, found a value of type {}", value.kind()))
    };
    value.as_int().ok_or_else(wrong)
}
