//! The options of `qft chat`.

use super::data::{ReadingArgs, ReadingOptions, TemplateChoice};
use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::sampling::{SamplingArgs, SamplingOptions};
use super::states::{StateOptions, WeightArgs};
use super::value::whole;
use crate::error::{ErrorKind, OfKind, Result, ensure};
use clap::ValueHint;
use qft_hub::ModelName;
use std::path::PathBuf;

/// Options of `qft chat`, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct ChatArgs {
    /// Model: a folder with config.json, safetensors and tokenizer.json, or a name in the Hugging Face hub: org/name,
    /// org/name@revision
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath)]
    pub model: ModelName,
    /// What the model is told before the talk
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Keep the talk in this file, a record with `messages` that `qft finetune` reads, and go on with what is there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub history: Option<PathBuf>,
    /// Chat template: auto, model, alpaca, chatml, llama2, llama3, none, or a Jinja file
    #[arg(long, value_name = "NAME|FILE")]
    pub template: Option<TemplateChoice>,
    /// Tokens that the whole talk may have [default: 4096, or the model's limit if that is less]
    #[arg(long, value_name = "TOKENS", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub context: Option<usize>,
    /// How the next token is chosen.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    pub weights: WeightArgs,
    /// Where to compute.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Checked options of `qft chat`.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatOptions {
    /// Folder or name of the model.
    pub model: ModelName,
    /// What it is told before the talk.
    pub system: Option<String>,
    /// Where the talk is kept.
    pub history: Option<PathBuf>,
    /// How the talk becomes text.
    pub reading: ReadingOptions,
    /// Tokens that it may have, as far as the model allows.
    pub context: Option<usize>,
    /// How the next token is chosen.
    pub sampling: SamplingOptions,
    /// How weights are stored and computed with.
    pub state: StateOptions,
    /// Where to compute.
    pub machine: MachineOptions,
}

impl ChatArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(self) -> Result<ChatOptions> {
        self.check().of_kind(ErrorKind::Options)
    }

    fn check(self) -> Result<ChatOptions> {
        ensure!(self.context != Some(0), "--context is 0; give a number of tokens");
        let reading = ReadingArgs { template: self.template, ..ReadingArgs::default() };
        Ok(ChatOptions {
            model: self.model,
            system: self.system,
            history: self.history,
            reading: reading.resolve(),
            context: self.context,
            sampling: self.sampling.resolve(SamplingOptions::CHAT)?,
            state: self.weights.resolve_writing()?,
            machine: self.machine.resolve(MemoryArgs::default())?,
        })
    }
}
