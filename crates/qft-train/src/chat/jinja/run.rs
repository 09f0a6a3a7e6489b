//! Statements.

use super::expressions;
use super::fault::{Fault, Meter, Outcome};
use super::iterate;
use super::names::Name;
use super::repr;
use super::tree::{Body, Statement, Target, Tree};
use super::value::{Function, Value, check_stored};
use std::sync::Arc;

/// A rendering.
pub(super) struct Run<'t> {
    pub(super) tree: &'t Tree,
    pub(super) meter: Meter,
    pub(super) now: u64,
    /// What is written.
    pub(super) out: String,
    /// What filters of blocks work on.
    pub(super) captured: Vec<Value>,
    frames: Vec<Frame>,
    /// The innermost frame.
    pub(super) frame: usize,
}

/// The variables of a block, and the block around it.
#[derive(Debug, Default)]
struct Frame {
    variables: Vec<(Name, Value)>,
    around: Option<usize>,
}

/// How a statement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

const FUNCTIONS: [(&str, Function); 5] = [
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("namespace", Function::Namespace),
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
];

/// Names of Jinja2 that no chat template needs.
const UNSUPPORTED: [&str; 4] = ["cycler", "joiner", "lipsum", "self"];

impl<'t> Run<'t> {
    pub(super) fn new(
        tree: &'t Tree,
        meter: Meter,
        now: u64,
        variables: Vec<(&str, Value)>,
    ) -> Self {
        let known = |(name, value): (&str, Value)| Some((tree.names.known(name)?, value));
        let variables = variables.into_iter().filter_map(known).collect();
        // What the template sets is in a frame of its own.
        let frames = vec![
            Frame { variables, around: None },
            Frame { variables: Vec::new(), around: Some(0) },
        ];
        Self { tree, meter, now, out: String::new(), captured: Vec::new(), frames, frame: 1 }
    }

    /// Renders the whole template.
    pub(super) fn template(&mut self) -> Outcome<String> {
        self.body(&self.tree.body)?;
        Ok(std::mem::take(&mut self.out))
    }

    /// Runs statements.
    pub(super) fn body(&mut self, body: &'t Body) -> Outcome<Flow> {
        for (line, statement) in body {
            self.meter.enter()?;
            let flow = self.statement(statement).map_err(|fault| fault.at(*line));
            self.meter.leave();
            match flow? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'t Statement) -> Outcome<Flow> {
        match statement {
            Statement::Write(text) => self.write(text)?,
            Statement::Emit(expression) => {
                let value = expressions::value(self, expression)?;
                self.emit(&value)?;
            }
            Statement::For(number) => return self.for_loop(*number),
            Statement::If(condition, yes, no) => {
                let condition = expressions::value(self, condition)?.is_true();
                return self.body(if condition { yes } else { no });
            }
            Statement::With(assignments, body) => {
                let value = |(_, value)| expressions::value(self, value);
                let values = assignments.iter().map(|(t, v)| (t, v)).map(value);
                let values: Vec<Value> = values.collect::<Outcome<_>>()?;
                return self.within(self.frame, |run| {
                    for ((target, _), value) in assignments.iter().zip(values) {
                        run.assign(target, value)?;
                    }
                    run.body(body)
                });
            }
            Statement::Set(target, value) => {
                let value = expressions::value(self, value)?;
                self.assign(target, value)?;
            }
            Statement::Capture(target, filter, body) => {
                let (flow, mut value) = self.capture(self.frame, body)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                if let Some(filter) = filter {
                    value = self.filtered(value, filter)?;
                }
                self.assign(target, value)?;
            }
            Statement::Filter(filter, body) => {
                let (flow, value) = self.capture(self.frame, body)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.filtered(value, filter)?;
                self.emit(&value)?;
            }
            Statement::Macro(number) => {
                let name = self.tree.macros[*number].name;
                self.set(name, Value::Macro(*number, self.frame));
            }
            Statement::Call(call, caller) => {
                let caller = Value::Macro(*caller, self.frame);
                let value = expressions::call(self, call, Some(caller))?;
                self.emit(&value)?;
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn filtered(&mut self, text: Value, filter: &'t super::tree::Expression) -> Outcome<Value> {
        self.captured.push(text);
        let value = expressions::value(self, filter);
        self.captured.pop();
        value
    }

    /// Writes a text.
    fn write(&mut self, text: &str) -> Outcome<()> {
        self.meter.bytes(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    /// Writes the text of a value.
    fn emit(&mut self, value: &Value) -> Outcome<()> {
        match value {
            Value::Text(text) => self.write(&text.text),
            value => {
                let text = repr::text(value, &self.meter)?;
                self.write(&text)
            }
        }
    }

    /// What statements write in a new block within `around`.
    pub(super) fn capture(&mut self, around: usize, body: &'t Body) -> Outcome<(Flow, Value)> {
        self.captured_with(around, |run| run.body(body))
    }

    /// What `work` writes in a new block within `around`.
    pub(super) fn captured_with<T>(
        &mut self,
        around: usize,
        work: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<(T, Value)> {
        let outer = std::mem::take(&mut self.out);
        let result = self.within(around, work);
        let text = std::mem::replace(&mut self.out, outer);
        Ok((result?, Value::text(text)))
    }

    /// Does `work` in a new block within `around`.
    pub(super) fn within<T>(
        &mut self,
        around: usize,
        work: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<T> {
        let (height, inner) = (self.frames.len(), self.frame);
        self.frames.push(Frame { variables: Vec::new(), around: Some(around) });
        self.frame = height;
        let result = work(self);
        self.frames.truncate(height);
        self.frame = inner;
        result
    }

    /// Sets a variable of the innermost block.
    pub(super) fn set(&mut self, name: Name, value: Value) {
        let variables = &mut self.frames[self.frame].variables;
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name, value)),
        }
    }

    /// Assigns a value to a variable, to an attribute of a namespace, or its elements to several.
    pub(super) fn assign(&mut self, target: &Target, value: Value) -> Outcome<()> {
        match target {
            Target::Name(name) => self.set(*name, value),
            Target::Attribute(name, attribute) => {
                let Value::Namespace(namespace) = self.variable(*name)? else {
                    return Err(Fault::new("cannot assign attribute on non-namespace object"));
                };
                set_attribute(&namespace, attribute, value)?;
            }
            Target::Unpack(targets) => {
                let values = iterate::elements(&value, &self.meter)?;
                if values.len() != targets.len() {
                    return Err(Fault::new(format!(
                        "expected {} values to unpack, found {}",
                        targets.len(),
                        values.len()
                    )));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value)?;
                }
            }
        }
        Ok(())
    }

    /// The value of a variable.
    pub(super) fn variable(&self, name: Name) -> Outcome<Value> {
        let mut next = Some(self.frame);
        while let Some(number) = next {
            let frame = &self.frames[number];
            if let Some((_, value)) = frame.variables.iter().find(|(known, _)| *known == name) {
                return Ok(value.clone());
            }
            next = frame.around;
        }
        let text = self.tree.names.text(name);
        if let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == text) {
            return Ok(Value::Function(*function));
        }
        if UNSUPPORTED.contains(&text) {
            return Err(Fault::unsupported(format!("the name {text}")));
        }
        Ok(Value::undefined(format!("'{text}' is undefined")))
    }
}

/// Sets an attribute of a namespace.
pub(super) fn set_attribute(
    namespace: &std::sync::Mutex<Vec<(Arc<str>, Value)>>,
    name: &Arc<str>,
    value: Value,
) -> Outcome<()> {
    if name.starts_with('_') {
        return Err(Fault::new(format!(
            "a namespace cannot have an attribute `{name}`, which begins with an underscore"
        )));
    }
    check_stored(&value)?;
    let mut entries = namespace.lock().map_err(|_| Fault::new("a namespace is in use"))?;
    match entries.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => entries.push((Arc::clone(name), value)),
    }
    Ok(())
}
