//! `qft chat`: a talk with a model in the terminal.

mod history;
mod lines;
mod request;

use crate::chat::Conversation;
use crate::data::{Reader, Template};
use crate::error::{Context, ErrorKind, OfKind, Result};
use crate::machine::Machine;
use crate::machine::signals::interrupts;
use crate::options::{ChatOptions, DataFormat};
use crate::report::{Fetching, note};
use crate::run::ModelFolder;
use crate::run::generation::{Ended, Generation, ReadText};
use history::History;
use lines::{Line, Lines};
use qft_hub::Need;
use qft_llama::TokenSampler;
use qft_llama::pass::Recompute;
use request::Request;
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::generate::Standard;

/// Tokens of a talk unless asked for otherwise: keys and values of them all are kept.
const CONTEXT: usize = 4096;

/// Runs the command; if `quiet`, nothing is said but what the model says.
pub fn run(options: &ChatOptions, quiet: bool) -> Result<()> {
    let mut history = History::open(options.history.as_deref()).of_kind(ErrorKind::Data)?;
    if let Some(system) = &options.system {
        history.set_system(system);
    }
    let ops = Machine::open(options.machine)?.ops;
    let mut fetching = Fetching::new(quiet);
    let folder = ModelFolder::find(&options.model, Need::All, &mut |notice| fetching.show(notice))?;
    let longest = folder.config.longest_sequence();
    let context = options.context.unwrap_or(CONTEXT).min(longest);
    let folder = folder.for_sequences(context).for_chats(&options.reading)?;
    let reader = folder.reader(&options.reading, context);
    let template = reader
        .template(DataFormat::Messages)?
        .context("there is no chat template; give --template")?;
    let never = AtomicBool::new(false);
    let model = folder.load(&*ops, options.state.format(), &never, &mut |_, _| ())?;
    let pass = options.state.pass(options.sampling.seed, Recompute::None);
    let generation = Generation { ops: &*ops, model: &model, pass, tokenizer: &folder.tokenizer };
    let mut lines = Lines::new().context("cannot read from the terminal")?;
    if lines.is_interactive() && !quiet {
        note("/help shows what else can be typed; Ctrl-C ends an answer, Ctrl-D the talk.\n");
    }
    let stop = Arc::new(AtomicBool::new(false));
    if lines.is_interactive() {
        interrupts(&stop).context("cannot catch Ctrl-C")?;
    }
    let mut chat = Chat {
        options,
        reader,
        template,
        generation,
        text: generation.begin()?,
        sampler: options.sampling.sampler()?,
        context,
        stop,
    };
    chat.talk(&mut lines, &mut history)
}

/// A talk in progress.
struct Chat<'a> {
    options: &'a ChatOptions,
    reader: Reader<'a>,
    template: Template,
    generation: Generation<'a>,
    /// What the model has read.
    text: ReadText,
    sampler: TokenSampler,
    /// Tokens of the talk at most.
    context: usize,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
}

impl Chat<'_> {
    /// Until there is no more to read, or nobody listens.
    fn talk(&mut self, lines: &mut Lines, history: &mut History) -> Result<()> {
        loop {
            let line = match lines.next().context("cannot read what is typed")? {
                Line::Text(line) => line,
                Line::Nothing => continue,
                Line::End => return Ok(()),
            };
            match Request::of(&line) {
                Request::Say(text) => {
                    let kept = history.messages().to_vec();
                    history.push("user", &text);
                    if !self.answer(history, kept)? {
                        return Ok(());
                    }
                }
                Request::Retry if history.take_answer() => {
                    let kept = history.messages().to_vec();
                    if !self.answer(history, kept)? {
                        return Ok(());
                    }
                }
                Request::Undo if history.take_exchange() => history.save()?,
                Request::Retry | Request::Undo => note("there is no answer yet"),
                Request::Reset => history.reset(),
                Request::System(text) => history.set_system(&text),
                Request::Help => note(request::HELP),
                Request::Exit => return Ok(()),
                Request::Unknown(name) => {
                    note(&format!("there is no {name}; /help shows what there is"));
                }
            }
        }
    }

    /// Lets the model answer, and keeps what it says; what cannot be answered is told, and the talk is as `kept` has it.
    /// Whether anybody listens.
    fn answer(&mut self, history: &mut History, kept: Vec<serde_json::Value>) -> Result<bool> {
        let talk = Conversation { messages: history.messages().to_vec(), tools: None };
        let prompt = self.reader.prompt(&self.template, &talk).and_then(|ids| {
            crate::error::ensure!(
                ids.len() < self.context,
                "the talk has {} tokens, of {} that it may have; /undo takes the last exchange back, /reset begins anew, and \
                 --context N allows more, as far as the model does",
                ids.len(),
                self.context
            );
            Ok(ids)
        });
        let ids = match prompt {
            Ok(ids) => ids,
            Err(error) => {
                note(&format!("{error:#}"));
                history.set_messages(kept);
                return Ok(true);
            }
        };
        let most = self.options.sampling.max_new_tokens.min(self.context - ids.len());
        let (mut out, mut said) = (Standard::default(), String::new());
        self.stop.store(false, Ordering::Relaxed);
        let mut listens = true;
        let mut write = |text: &str| {
            said += text;
            listens = out.write(text).is_continue();
            match listens && !self.stop.load(Ordering::Relaxed) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let (text, sampler) = (&mut self.text, &mut self.sampler);
        let generated = self.generation.go_on(text, &ids, most, sampler, &mut write)?;
        listens = listens && out.write("\n").is_continue();
        tracing::info!("{}; the talk has {} tokens", generated.speed, ids.len() + generated.tokens);
        if generated.ended == Ended::Full {
            note(&format!("(cut off after {} tokens)", generated.tokens));
        }
        history.push_answer(&said, generated.ended == Ended::ByItself);
        history.save()?;
        out.end()?;
        Ok(listens)
    }
}

/// A message.
fn message(role: &str, content: &str) -> serde_json::Value {
    json!({ "role": role, "content": content })
}
