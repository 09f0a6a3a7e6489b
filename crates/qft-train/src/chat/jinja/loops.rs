//! Loops, and the variable `loop`.

use super::args::Args;
use super::compare;
use super::expressions;
use super::fault::{Fault, Outcome};
use super::iterate;
use super::run::{Flow, Run};
use super::value::{Once, Value};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// A loop that runs.
#[derive(Debug)]
pub(in super::super) struct Loop {
    /// Its number in the template.
    number: usize,
    /// The frame around it.
    around: usize,
    depth: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    source: Source,
    /// Elements that were looked at before their turn.
    ahead: VecDeque<Value>,
    before: Option<Value>,
    current: Option<Value>,
    /// Elements that were begun.
    begun: usize,
    length: Option<usize>,
    changed: Option<Vec<Value>>,
}

#[derive(Debug)]
enum Source {
    /// What has a length.
    Whole(std::vec::IntoIter<Value>),
    /// What is used up by the loop.
    Once(Arc<Once>),
}

impl Source {
    fn next(&mut self) -> Outcome<Option<Value>> {
        match self {
            Self::Whole(items) => Ok(items.next()),
            Self::Once(once) => iterate::next(once),
        }
    }
}

impl Loop {
    fn state(&self) -> Outcome<MutexGuard<'_, State>> {
        self.state.lock().map_err(|_| Fault::new("a loop is in use"))
    }
}

impl<'t> Run<'t> {
    pub(super) fn for_loop(&mut self, number: usize) -> Outcome<Flow> {
        let over = expressions::value(self, &self.tree.loops[number].over)?;
        self.loop_over(number, over, self.frame, 0)
    }

    /// Runs a loop over a value.
    fn loop_over(
        &mut self,
        number: usize,
        over: Value,
        around: usize,
        depth: usize,
    ) -> Outcome<Flow> {
        let code = &self.tree.loops[number];
        let source = match &over {
            Value::Iterator(once) => Source::Once(Arc::clone(once)),
            over => Source::Whole(iterate::elements(over, &self.meter)?.into_iter()),
        };
        let length = match &source {
            Source::Whole(items) if code.filter.is_none() => Some(items.len()),
            _ => None,
        };
        let state = Mutex::new(State {
            source,
            ahead: VecDeque::new(),
            before: None,
            current: None,
            begun: 0,
            length,
            changed: None,
        });
        let this = Arc::new(Loop { number, around, depth, state });
        let name = self.tree.names.known("loop");
        // Jinja2 counts iterations that reach the end of the body.
        let mut completed = false;
        while let Some(item) = self.advance(&this)? {
            self.meter.steps(1)?;
            let flow = self.within(around, |run| {
                if let Some(name) = name {
                    run.set(name, Value::Loop(Arc::clone(&this)));
                }
                run.assign(&code.target, item)?;
                run.body(&code.body)
            })?;
            match flow {
                Flow::Next => completed = true,
                Flow::Break => break,
                Flow::Continue => {}
            }
        }
        if !completed {
            return self.within(around, |run| run.body(&code.otherwise));
        }
        Ok(Flow::Next)
    }

    /// The next element that the loop's condition lets through, not yet begun.
    fn pull(&mut self, this: &Loop) -> Outcome<Option<Value>> {
        let code = &self.tree.loops[this.number];
        loop {
            let next = this.state()?.source.next()?;
            let (Some(item), Some(filter)) = (&next, &code.filter) else { return Ok(next) };
            self.meter.steps(1)?;
            let kept = self.within(this.around, |run| {
                run.assign(&code.target, item.clone())?;
                Ok(expressions::value(run, filter)?.is_true())
            })?;
            if kept {
                return Ok(next);
            }
        }
    }

    fn advance(&mut self, this: &Loop) -> Outcome<Option<Value>> {
        let ahead = this.state()?.ahead.pop_front();
        let next = match ahead {
            Some(item) => Some(item),
            None => self.pull(this)?,
        };
        if next.is_some() {
            let mut state = this.state()?;
            state.begun += 1;
            state.before = state.current.take();
            state.current.clone_from(&next);
        }
        Ok(next)
    }

    /// The element after this one.
    fn peek(&mut self, this: &Loop) -> Outcome<Option<Value>> {
        if let Some(next) = this.state()?.ahead.front() {
            return Ok(Some(next.clone()));
        }
        let next = self.pull(this)?;
        this.state()?.ahead.extend(next.clone());
        Ok(next)
    }

    fn length(&mut self, this: &Loop) -> Outcome<usize> {
        if let Some(length) = this.state()?.length {
            return Ok(length);
        }
        let mut rest = Vec::new();
        while let Some(item) = self.pull(this)? {
            rest.push(item);
        }
        let mut state = this.state()?;
        state.ahead.extend(rest);
        let length = state.begun + state.ahead.len();
        state.length = Some(length);
        Ok(length)
    }

    /// An attribute of the variable `loop`.
    pub(super) fn loop_attribute(&mut self, this: &Arc<Loop>, name: &str) -> Outcome<Value> {
        let index = this.state()?.begun;
        let or_undefined = |item: Option<Value>, why: &str| {
            item.unwrap_or_else(|| Value::undefined(why.to_string()))
        };
        Ok(match name {
            "index" => Value::count(index),
            "index0" => Value::count(index.saturating_sub(1)),
            "revindex" => Value::count((self.length(this)? + 1).saturating_sub(index)),
            "revindex0" => Value::count(self.length(this)?.saturating_sub(index)),
            "first" => Value::Bool(index == 1),
            "last" => Value::Bool(self.peek(this)?.is_none()),
            "length" => Value::count(self.length(this)?),
            "depth" => Value::count(this.depth + 1),
            "depth0" => Value::count(this.depth),
            "previtem" => or_undefined(this.state()?.before.clone(), "there is no previous item"),
            "nextitem" => or_undefined(self.peek(this)?, "there is no next item"),
            "cycle" => Value::Method(Arc::new((Value::Loop(Arc::clone(this)), "cycle"))),
            "changed" => Value::Method(Arc::new((Value::Loop(Arc::clone(this)), "changed"))),
            name => Value::undefined(format!("'LoopContext' has no attribute '{name}'")),
        })
    }

    /// A method of the variable `loop`.
    pub(super) fn loop_method(&mut self, this: &Loop, name: &str, args: &Args) -> Outcome<Value> {
        let values = args.unnamed(name)?;
        let mut state = this.state()?;
        if name == "cycle" {
            let index = state.begun.saturating_sub(1);
            let chosen = index.checked_rem(values.len()).map(|chosen| values[chosen].clone());
            return chosen.ok_or_else(|| Fault::new("loop.cycle: no items for cycling given"));
        }
        let same = match &state.changed {
            Some(last) => compare::all_equal(last, values, &self.meter)?,
            None => false,
        };
        if !same {
            state.changed = Some(values.to_vec());
        }
        Ok(Value::Bool(!same))
    }

    /// `loop(...)`: the same loop again, over another value, as text.
    pub(super) fn recurse(&mut self, this: &Loop, args: &Args) -> Outcome<Value> {
        if !self.tree.loops[this.number].recursive {
            return Err(Fault::new(
                "the loop must be marked `recursive` to be called: {% for ... recursive %}",
            ));
        }
        let [over] = args.unnamed("loop")? else {
            return Err(Fault::new("loop takes one value"));
        };
        let over = over.clone();
        let (number, around, depth) = (this.number, this.around, this.depth + 1);
        let run = |run: &mut Self| run.loop_over(number, over, around, depth);
        Ok(self.captured_with(around, run)?.1)
    }
}
