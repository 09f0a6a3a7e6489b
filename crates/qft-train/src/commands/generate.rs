//! `qft generate`: continues a text, or answers a user's turn.

use crate::chat::Conversation;
use crate::data::encoder::at_start;
use crate::error::{Context, Result};
use crate::machine::Machine;
use crate::options::{DataFormat, GenerateOptions, ReadingArgs};
use crate::report::Fetching;
use crate::run::ModelFolder;
use crate::run::sample::{Ended, Generation};
use qft_hub::Need;
use qft_llama::pass::Recompute;
use qft_llama::sampling::TokenSampler;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

/// Runs the command; if `quiet`, without progress.
pub fn run(options: &GenerateOptions, quiet: bool) -> Result<()> {
    let ops = Machine::open(options.machine)?.ops;
    let mut fetching = Fetching::new(quiet);
    let folder = ModelFolder::find(&options.model, Need::All, &mut |notice| fetching.show(notice))?;
    let prompt = if options.chat {
        let reading =
            ReadingArgs { template: Some(options.template.clone()), ..Default::default() };
        let reading = reading.resolve();
        let reader = folder.reader(&reading, folder.config.longest_sequence());
        let template = reader
            .template(DataFormat::Messages)?
            .context("--chat: there is no chat template; give --template")?;
        reader.prompt(&template, &Conversation::ask(&options.prompt))?
    } else {
        at_start(&folder.tokenizer, &options.prompt)?
    };
    let tokens = prompt.len().saturating_add(options.max_new_tokens);
    let tokens = tokens.min(folder.config.longest_sequence());
    let folder = folder.for_sequences(tokens);
    let never = AtomicBool::new(false);
    let model = folder.load(&*ops, options.state.format(), &never, &mut |_, _| ())?;
    let pass = options.state.pass(options.seed, Recompute::None);
    let mut sampler = TokenSampler::new(options.temperature, options.top_p, options.seed)?;
    // A reader that has gone away ends the text; another failure is one.
    let mut failed = None;
    let mut write = |text: &str| {
        let mut out = std::io::stdout().lock();
        match write!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error).filter(|error| error.kind() != ErrorKind::BrokenPipe);
                ControlFlow::Break(())
            }
        }
    };
    let prompted = options.chat || write(&options.prompt).is_continue();
    let generation = Generation { ops: &*ops, model: &model, pass, tokenizer: &folder.tokenizer };
    if prompted {
        let most = options.max_new_tokens;
        let generated = generation.run(&prompt, most, &mut sampler, &mut write)?;
        if generated.ended != Ended::Stopped {
            let _ended = write("\n");
        }
    }
    match failed {
        Some(error) => Err(error).context("cannot write to standard output"),
        None => Ok(()),
    }
}
