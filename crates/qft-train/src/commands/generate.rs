//! `qft generate`: continues a text, or answers a user's turn; one, or all of a file.

use crate::data::Prompt;
use crate::error::{Context, Error, ErrorKind, OfKind, Result};
use crate::machine::Machine;
use crate::options::{GenerateOptions, Prompts};
use crate::report::{Fetching, WritingBar};
use crate::run::ModelFolder;
use crate::run::generation::{Continued, Ended, Generation, Together};
use qft_files::{AtomicFile, Disk};
use qft_hub::Need;
use qft_llama::pass::Recompute;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind as IoErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Runs the command; if `quiet`, without progress.
pub fn run(options: &GenerateOptions, quiet: bool) -> Result<()> {
    let ops = Machine::open(options.machine)?.ops;
    let mut fetching = Fetching::new(quiet);
    let folder = ModelFolder::find(&options.model, Need::All, &mut |notice| fetching.show(notice))?;
    let folder = if options.chat { folder.for_chats(&options.reading)? } else { folder };
    let reader = folder.reader(&options.reading, folder.config.longest_sequence());
    let prompts = match &options.prompts {
        Prompts::One(text) => vec![reader.one_prompt(text, options.chat)?],
        Prompts::Many { path, .. } => {
            let place = || format!("--prompts {}", path.display());
            reader.prompts(path, options.chat).with_context(place).of_kind(ErrorKind::Data)?
        }
    };
    let most = folder.config.longest_sequence();
    let too_long = prompts.iter().enumerate().find(|(_, prompt)| prompt.ids.len() > most);
    if let Some((index, prompt)) = too_long {
        let (tokens, kind) = (prompt.ids.len(), ErrorKind::Data);
        let which = match &options.prompts {
            Prompts::One(_) => "--prompt".to_owned(),
            Prompts::Many { path, .. } => {
                format!("--prompts {}: prompt {}", path.display(), index + 1)
            }
        };
        let told = format!(
            "{which}: {tokens} tokens, and the model reads at most {most}; give a shorter text"
        );
        return Err(Error::new(kind, told));
    }
    let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
    let tokens = longest.saturating_add(options.sampling.max_new_tokens);
    let tokens = tokens.min(folder.config.longest_sequence());
    let folder = folder.for_sequences(tokens);
    let never = AtomicBool::new(false);
    let model = folder.load(&*ops, options.state.format(), &never, &mut |_, _| ())?;
    let pass = options.state.pass(options.sampling.seed, Recompute::None);
    let generation = Generation { ops: &*ops, model: &model, pass, tokenizer: &folder.tokenizer };
    match &options.prompts {
        Prompts::One(text) => one(&generation, text, &prompts[0], options),
        Prompts::Many { together, out, .. } => {
            let together = Together { texts: *together, most: options.sampling.max_new_tokens };
            many(&generation, &prompts, together, out.as_deref(), options, quiet)
        }
    }
}

/// Continues one text, as it comes.
fn one(
    generation: &Generation<'_>,
    text: &str,
    prompt: &Prompt,
    options: &GenerateOptions,
) -> Result<()> {
    let mut out = Standard::default();
    if !options.chat && out.write(text).is_break() {
        return out.end();
    }
    let most = options.sampling.max_new_tokens;
    let mut sampler = options.sampling.sampler()?;
    let generated = generation.run(&prompt.ids, most, &mut sampler, &mut |text| out.write(text))?;
    if generated.ended != Ended::Stopped {
        let _ended = out.write("\n");
    }
    tracing::info!("{}", generated.speed);
    out.end()
}

/// Continues all prompts; what comes of them is written in their order.
fn many(
    generation: &Generation<'_>,
    prompts: &[Prompt],
    together: Together,
    file: Option<&Path>,
    options: &GenerateOptions,
    quiet: bool,
) -> Result<()> {
    let ids: Vec<_> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let mut bar = WritingBar::new(quiet, prompts.len());
    let (mut out, mut whole) = (Standard::default(), String::new());
    // Those that ended before others whose turn it is.
    let (mut early, mut next) = (BTreeMap::new(), 0);
    let sampler = options.sampling.sampler()?;
    let speed = generation.run_many(&ids, together, &sampler, &mut |continued| {
        bar.wrote(continued.tokens);
        early.insert(continued.index, continued);
        while let Some(continued) = early.remove(&next) {
            let line = line(&prompts[next], &continued);
            next += 1;
            match file {
                Some(_) => whole += &line,
                None if out.write(&line).is_break() => return Ok(ControlFlow::Break(())),
                None => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    bar.finish();
    if let Some(path) = file {
        let written = AtomicFile::write_whole(&Disk::default(), path, whole.as_bytes());
        let place = || format!("--out: cannot write {}", path.display());
        written.with_context(place).of_kind(ErrorKind::Output)?;
    }
    tracing::info!("{speed}");
    out.end()
}

/// A prompt and how it goes on, as a line of JSON.
fn line(prompt: &Prompt, continued: &Continued) -> String {
    let finish_reason = match continued.ended {
        Ended::ByItself => "stop",
        Ended::Full | Ended::Stopped => "length",
    };
    let line = json!({
        "index": continued.index,
        "prompt": prompt.given,
        "completion": continued.text,
        "tokens": continued.tokens,
        "finish_reason": finish_reason,
    });
    format!("{line}\n")
}

/// Standard output. A reader that has gone away ends what is written; another failure is one.
#[derive(Debug, Default)]
pub(super) struct Standard {
    failed: Option<io::Error>,
}

impl Standard {
    /// Writes and flushes.
    pub(super) fn write(&mut self, text: &str) -> ControlFlow<()> {
        let mut out = io::stdout().lock();
        match write!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error).filter(|error| error.kind() != IoErrorKind::BrokenPipe);
                ControlFlow::Break(())
            }
        }
    }

    /// Errors: something could not be written.
    pub(super) fn end(self) -> Result<()> {
        match self.failed {
            Some(error) => Err(error).context("cannot write to standard output"),
            None => Ok(()),
        }
    }
}
