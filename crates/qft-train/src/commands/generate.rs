//! `qft generate`: continues a text, or answers a user's turn.

use crate::TrainOps;
use crate::chat::Conversation;
use crate::machine::Machine;
use crate::open::Folder;
use crate::options::choice::{DataFormat, TrainOn};
use crate::options::{DataOptions, GenerateOptions};
use crate::trainer::calibrate;
use anyhow::{Context, Result};
use qft_llama::generate::Session;
use qft_llama::model::Model;
use qft_llama::pass::{PassOptions, Recompute};
use qft_llama::sampling::Sampler;
use qft_llama::{Batch, Tokenizer};
use std::io::Write;

/// Runs the command.
pub fn run(options: &GenerateOptions) -> Result<()> {
    let ops = Machine::open(options.machine)?.ops;
    let folder = Folder::open(&options.model)?;
    let prompt = if options.chat {
        let reading = DataOptions {
            format: DataFormat::Messages,
            template: options.template.clone(),
            train_on: TrainOn::All,
        };
        let reader = folder.reader(&reading, folder.config.max_position_embeddings);
        let template = reader
            .template(DataFormat::Messages)?
            .context("--chat: there is no chat template; give --template")?;
        reader.prompt(&template, &Conversation::ask(&options.prompt))?
    } else {
        prompt_ids(&folder.tokenizer, &options.prompt)?
    };
    let mut model = folder.load(&*ops, &options.state, &mut |_, _| ())?;
    let pass = options.state.pass(options.seed, Recompute::None);
    calibrate(&*ops, &mut model, &pass, &[every_position(&prompt)])?;
    let mut sampler = Sampler::new(options.temperature, options.top_p, options.seed)?;
    let mut out = std::io::stdout().lock();
    if !options.chat {
        write!(out, "{}", options.prompt)?;
    }
    let generation = Generation { ops: &*ops, model: &model, pass, tokenizer: &folder.tokenizer };
    generation.run(&prompt, options.max_new_tokens, &mut sampler, &mut |text| {
        write!(out, "{text}")?;
        Ok(out.flush()?)
    })?;
    Ok(writeln!(out)?)
}

/// The prompt as a batch whose every position counts: what a model without training data is calibrated on.
fn every_position(prompt: &[u32]) -> Batch {
    let mut batch = Batch::default();
    batch.push(prompt, prompt);
    batch
}

/// BOS, if the tokenizer has one, and the text.
pub fn prompt_ids(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>> {
    let mut ids: Vec<u32> = tokenizer.bos().into_iter().collect();
    ids.extend(tokenizer.encode(prompt)?);
    Ok(ids)
}

/// What a generation reads from.
pub struct Generation<'a> {
    /// The device.
    pub ops: &'a dyn TrainOps,
    /// The model.
    pub model: &'a Model,
    /// How it computes.
    pub pass: PassOptions,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
}

impl Generation<'_> {
    /// Continues `prompt` until an end-of-sequence token, `most` new tokens, or the end of the model's positions;
    /// `write` receives whole characters as they come.
    pub fn run(
        &self,
        prompt: &[u32],
        most: usize,
        sampler: &mut Sampler,
        write: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let limit = self.model.config.max_position_embeddings;
        let capacity = prompt.len().saturating_add(most).min(limit).max(prompt.len());
        let mut session = Session::new(self.ops, self.model, self.pass, capacity)?;
        let mut logits = session.read(prompt)?;
        let mut stream = self.tokenizer.stream(prompt);
        for produced in 1..=capacity - prompt.len() {
            let id = sampler.sample(&mut logits)?;
            if self.tokenizer.eos().contains(&id) {
                break;
            }
            write(&stream.push(id)?)?;
            if produced < capacity - prompt.len() {
                logits = session.read(&[id])?;
            }
        }
        write(&stream.finish()?)
    }
}
