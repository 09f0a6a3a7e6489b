//! Jinja templates, run as Jinja2 runs them for `transformers`: with Python's values, methods and texts of values.
//!
//! The syntax is parsed by `minijinja`; `tree` makes of it what `run` walks through. Whatever is not known here is an
//! error with its name: nothing is written otherwise in silence.

mod args;
mod arithmetic;
mod attributes;
mod clock;
mod collections;
mod compare;
mod escapes;
mod expressions;
mod fault;
mod filters;
mod format;
mod functions;
mod iterate;
mod json;
mod loops;
mod macros;
mod names;
mod number_text;
mod percent;
mod repr;
mod run;
mod tests;
mod text_methods;
mod tree;
mod unicode;
mod value;

pub(super) use fault::Fault;
pub(super) use value::Value;

use fault::Meter;
use run::Run;
use std::collections::HashSet;
use tree::Tree;

/// A template that can be rendered.
#[derive(Debug)]
pub(super) struct Program {
    tree: Tree,
    /// What `strftime_now` is told, in seconds since 1970.
    now: u64,
}

impl Program {
    /// Compiles `source`.
    ///
    /// Errors: it is not a valid template, or has a statement that is not supported.
    pub(super) fn compile(source: &str, now: u64) -> Result<Self, Fault> {
        Ok(Self { tree: Tree::parse(source)?, now })
    }

    /// The names of all variables that the template reads.
    pub(super) fn read(&self) -> HashSet<String> {
        self.tree.read.iter().map(|&name| self.tree.names.text(name).to_string()).collect()
    }

    /// Renders the template with these variables, at the cost of `fuel` at most, and says what of it is left.
    ///
    /// Errors: the template fails, does what is not supported, or uses up its fuel.
    pub(super) fn render(
        &self,
        variables: Vec<(&str, Value)>,
        fuel: u64,
    ) -> (Result<String, Fault>, u64) {
        let mut run = Run::new(&self.tree, Meter::new(fuel), self.now, variables);
        let rendered = run.template();
        (rendered, run.meter.left())
    }
}
