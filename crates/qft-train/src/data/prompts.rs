//! Prompts of a file: what a model is to continue or to answer, in every format that training data has.

use super::encoder::at_start;
use super::progress::Tally;
use super::reader::Reader;
use super::records::{Record, detect, join_conversation, rename};
use super::source::{Piece, Source};
use super::template::Template;
use crate::chat::Conversation;
use crate::error::{Context, Result, ensure};
use crate::options::DataFormat;
use serde_json::{Map, Value};
use std::path::Path;

/// A prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// As it was given: a text, or a list of messages.
    pub given: Value,
    /// Its tokens.
    pub ids: Vec<u32>,
}

/// How prompts become tokens; the template is chosen once.
struct Prompter<'a> {
    reader: Reader<'a>,
    /// Whether texts are a user's turn.
    chat: bool,
    template: Option<Template>,
}

impl Reader<'_> {
    /// The prompts of a file. What is there of an answer, in its last place, is left out.
    ///
    /// `chat`: texts are what a user says.
    ///
    /// Errors: those of [`Reader::read`], with the place; a file without prompts.
    pub fn prompts(&self, path: &Path, chat: bool) -> Result<Vec<Prompt>> {
        let mut prompter = Prompter { reader: *self, chat, template: None };
        let untold = |_| Ok(());
        let tally = Tally::new(0, &untold);
        let source = Source::open(path, self.options, &tally)?;
        let (mut prompts, mut all) = (Vec::new(), String::new());
        source.pieces(&mut |piece| {
            match piece {
                Piece::Text(text) => all += &text,
                Piece::Record(row) => {
                    let place = row.place;
                    let prompt = row.parse().and_then(|value| prompter.record(value));
                    prompts.push(prompt.with_context(|| place.name(path))?);
                }
            }
            Ok(())
        })?;
        for (number, line) in all.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = || format!("{}:{}", path.display(), number + 1);
            prompts.push(prompter.text(Conversation::default(), line).with_context(place)?);
        }
        ensure!(!prompts.is_empty(), "{}: has no prompts", path.display());
        Ok(prompts)
    }

    /// One prompt; `chat`: it is what a user says.
    ///
    /// Errors: there is no chat template, or it refuses the text; the text cannot be tokenized.
    pub fn one_prompt(&self, text: &str, chat: bool) -> Result<Prompt> {
        Prompter { reader: *self, chat, template: None }.text(Conversation::default(), text)
    }
}

impl Prompter<'_> {
    fn record(&mut self, mut value: Value) -> Result<Prompt> {
        let options = self.reader.options;
        rename(&mut value, &options.fields)?;
        if let Value::Object(fields) = &mut value {
            complete(fields);
        }
        join_conversation(&mut value);
        let format = match options.format {
            DataFormat::Auto => detect(&value)?,
            format => format,
        };
        match Record::from_json(value, format)? {
            Record::Text(text) => self.text(Conversation::default(), &text),
            Record::Completion { before, prompt, .. } => self.text(before, &prompt),
            Record::Chat(mut talk) => {
                let answered = |last: &Value| last["role"] == "assistant";
                if talk.messages.last().is_some_and(answered) {
                    talk.messages.pop();
                }
                ensure!(!talk.messages.is_empty(), "there is no turn to answer");
                self.talk(talk, format)
            }
        }
    }

    /// A text to continue; where it is what a user says, `before` is what the model is told first.
    fn text(&mut self, before: Conversation, text: &str) -> Result<Prompt> {
        let given = text.into();
        if self.chat {
            let talk = self.talk(before.then_ask(text), DataFormat::Messages)?;
            return Ok(Prompt { given, ..talk });
        }
        let ids = at_start(self.reader.encoder, text)?;
        ensure!(!ids.is_empty(), "there is nothing to continue; give a text");
        Ok(Prompt { given, ids })
    }

    fn talk(&mut self, talk: Conversation, format: DataFormat) -> Result<Prompt> {
        let template = match self.template.take() {
            Some(template) => template,
            None => self
                .reader
                .template(format)?
                .context("there is no chat template; give --template")?,
        };
        let ids = self.reader.prompt(&template, &talk);
        self.template = Some(template);
        Ok(Prompt { ids: ids?, given: talk.messages.into() })
    }
}

/// Gives a record what only training needs of it.
fn complete(fields: &mut Map<String, Value>) {
    for (prompt, answer) in [("prompt", "completion"), ("instruction", "output")] {
        if fields.contains_key(prompt) && !fields.contains_key(answer) {
            fields.insert(answer.into(), "".into());
        }
    }
}
