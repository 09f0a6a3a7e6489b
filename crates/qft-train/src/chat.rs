//! Conversations as text: Jinja chat templates, rendered as `transformers` renders them.

mod arguments;
mod builtin;
mod fuel;
mod jinja;
mod marks;
mod message;
mod renderer;
mod spans;

use crate::error::{Context, Result, ensure};
use crate::options::{BuiltIn, TrainOn};
pub(crate) use arguments::with_object;
pub(crate) use fuel::spawn;
use jinja::Program;
use renderer::Renderer;
use serde_json::Value;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// The date that `strftime_now` gives to templates in training, in seconds since 1970: 26 July 2024, which LLaMA 3's
/// own template falls back on. A run must not depend on the day on which it is resumed.
pub const TRAINING_DATE: u64 = 1_721_952_000;

/// The texts of special tokens that templates may write.
#[derive(Debug, Clone, Default)]
pub struct SpecialTexts {
    /// What the tokenizer puts before a text, which is up to templates here; empty if that is nothing.
    pub before: String,
    /// Begins a sequence; empty if the model has none.
    pub bos: String,
    /// End a turn or a sequence; templates get the first.
    pub ends: Vec<String>,
    /// Fills sequences up; empty if the model has none.
    pub padding: String,
    /// Stands for what cannot be spelled; empty if the model has none.
    pub unknown: String,
}

/// Turns of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// Objects with `role` and `content`, and whatever else a template may read.
    pub messages: Vec<Value>,
    /// Tools that the assistant may call, a list.
    pub tools: Option<Value>,
}

impl Conversation {
    /// The turn of a user, alone.
    pub fn ask(text: &str) -> Self {
        Self::default().then_ask(text)
    }

    /// The same, and then the turn of a user.
    #[must_use]
    pub fn then_ask(mut self, text: &str) -> Self {
        self.messages.push(serde_json::json!({ "role": "user", "content": text }));
        self
    }
}

/// Whether a message is the assistant's.
fn is_assistant(message: &jinja::Value) -> bool {
    message.field("role").is_some_and(|role| role.as_text() == Some("assistant"))
}

/// Whether a message is to be learned: not if it says `"weight": 0` or `"train": false`.
fn is_learned(message: &Value) -> bool {
    let weight = message.get("weight").and_then(Value::as_f64);
    weight != Some(0.0) && message.get("train") != Some(&Value::Bool(false))
}

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What is learned of it: byte ranges of the text, rising. A turn goes with the token that ends it.
    pub learned: Vec<Range<usize>>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Arc<Template>,
    /// Built-in templates are known to end soon.
    built_in: bool,
}

#[derive(Debug)]
struct Template {
    program: Program,
    name: String,
    source: String,
    special: SpecialTexts,
    /// Whether it marks what the assistant says.
    marked: bool,
    /// The variables that it reads.
    read: HashSet<String>,
    calls_tools: bool,
}

/// The longest source that is read: ten times that of any template in use.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Stack for each byte of a source that is compiled: more than twice what `{{ -----1 }}` takes.
const STACK_PER_SOURCE_BYTE: usize = 1 << 10;

impl ChatTemplate {
    /// Compiles `source`; `name` is what errors call it. `now` is the time for `strftime_now`, in seconds since
    /// 1970; see [`TRAINING_DATE`].
    ///
    /// Errors: the source is not a valid template.
    pub fn new(name: &str, source: &str, special: SpecialTexts, now: u64) -> Result<Self> {
        ensure!(
            source.len() <= MAX_SOURCE_BYTES,
            "chat template {name}: has {} bytes, at most {MAX_SOURCE_BYTES} are read; choose another with --template",
            source.len()
        );
        let (with_marks, marked) = marks::with_marks(&lines(source));
        let calls_tools = source.contains("tool_calls");
        let job = (name.to_string(), with_marks);
        // Each character may be a level of the parser's recursion.
        let stack = job.1.len() * STACK_PER_SOURCE_BYTE;
        let program = fuel::run(name, stack, move || {
            let what = || format!("chat template {}: is not valid Jinja", job.0);
            Program::compile(&job.1, now).with_context(what)
        })?;
        let read = program.read();
        let (name, source) = (name.to_string(), source.to_string());
        let template = Template { program, name, source, special, marked, read, calls_tools };
        Ok(Self { template: Arc::new(template), built_in: false })
    }

    /// One of the templates that are built in.
    ///
    /// Errors: none that a built-in template should cause.
    pub fn built_in(template: BuiltIn, special: SpecialTexts) -> Result<Self> {
        let source = builtin::source(template, &special);
        let template = Self::new(template.name(), &source, special, TRAINING_DATE)?;
        Ok(Self { built_in: true, ..template })
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.template.source
    }

    /// Whether the template knows of calls to tools.
    pub fn calls_tools(&self) -> bool {
        self.template.calls_tools
    }

    /// Whether the template writes the tools that a conversation may call.
    pub fn writes_tools(&self) -> bool {
        self.template.read.contains("tools")
    }

    /// Whether the template writes the fields of a conversation's messages that hold what was thought before they were said.
    pub fn writes_thoughts(&self, talk: &Conversation) -> bool {
        let thought = |message: &Value, name| {
            message
                .get(name)
                .and_then(Value::as_str)
                .is_some_and(|thought| !thought.trim().is_empty())
        };
        // Templates see it under several names.
        let mut thoughtful = talk
            .messages
            .iter()
            .filter(|message| message::REASONING.iter().any(|&name| thought(message, name)));
        message::REASONING.iter().any(|name| names(&self.template.source, name))
            || thoughtful.next().is_none()
    }

    /// What the template writes behind what the assistant says, without the white space between; nothing where it writes
    /// nothing there, or cannot write such a conversation.
    pub fn behind_answers(&self) -> String {
        let said = "\u{b6}";
        let mut talk = Conversation::ask("?");
        talk.messages.push(serde_json::json!({ "role": "assistant", "content": said }));
        let text = self.render(&talk, false).unwrap_or_default();
        text.rsplit_once(said).map(|(_, behind)| behind.trim_start().to_owned()).unwrap_or_default()
    }

    /// The conversation as text; with `add_generation_prompt`, up to where the assistant speaks next.
    ///
    /// Errors: the template refuses the conversation, fails, or takes more than a conversation of this length may.
    pub fn render(&self, talk: &Conversation, add_generation_prompt: bool) -> Result<String> {
        self.run(talk, move |renderer| renderer.whole(add_generation_prompt))
    }

    /// The conversation as the samples that are trained on, each with what is learned of it.
    ///
    /// A template with `{% generation %}` blocks says itself where the assistant speaks. With others the conversation
    /// is rendered up to before and up to after each of the assistant's turns, and these texts must be beginnings of
    /// the whole.
    ///
    /// Errors: those of [`ChatTemplate::render`]; a template that writes earlier turns differently when later ones
    /// follow, unless each turn is a sample of its own.
    pub fn samples(&self, talk: &Conversation, train_on: TrainOn) -> Result<Vec<Rendered>> {
        self.run(talk, move |renderer| renderer.samples(train_on))
    }

    /// Does `work` with the renderings of a conversation.
    fn run<T: Send + 'static>(
        &self,
        talk: &Conversation,
        work: impl FnOnce(&Renderer<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let fuel = fuel::of(talk);
        let template = &self.template;
        if self.built_in || fuel::has_stack() {
            return template.run(fuel, talk, work);
        }
        let (template, talk) = (Arc::clone(template), talk.clone());
        fuel::run(&self.template.name, fuel::STACK, move || template.run(fuel, &talk, work))
    }
}

impl Template {
    fn run<T>(
        &self,
        fuel: u64,
        talk: &Conversation,
        work: impl FnOnce(&Renderer<'_>) -> Result<T>,
    ) -> Result<T> {
        let render = |talk: &Conversation| Renderer::new(self, fuel, talk)?.whole(false);
        match arguments::as_expected(talk, render) {
            Some(talk) => work(&Renderer::new(self, fuel, &talk)?),
            None => work(&Renderer::new(self, fuel, talk)?),
        }
    }
}

/// Whether a source has a name, and not as a part of another.
fn names(source: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    source.match_indices(name).any(|(start, _)| {
        let (before, behind) = (&source[..start], &source[start + name.len()..]);
        !before.ends_with(goes_on) && !behind.starts_with(goes_on)
    })
}

/// A source with the line ends that templates are taken to have.
fn lines(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

#[cfg(test)]
mod tests;
