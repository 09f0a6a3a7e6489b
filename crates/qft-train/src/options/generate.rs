//! The options of `qft generate`.

use super::data::{DataFormat, FieldName, ReadingArgs, ReadingOptions, TemplateChoice};
use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::sampling::{SamplingArgs, SamplingOptions};
use super::states::{StateOptions, WeightArgs};
use super::value::whole;
use crate::error::{ErrorKind, OfKind, Result, bail, ensure};
use clap::ValueHint;
use qft_hub::ModelName;
use std::path::PathBuf;

/// Options of `qft generate`, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct GenerateArgs {
    /// Model: a folder with config.json, safetensors and tokenizer.json, or a name in the Hugging Face hub: org/name,
    /// org/name@revision
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath)]
    pub model: ModelName,
    /// Text to continue; with --chat, what the user says
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "prompts",
        conflicts_with = "prompts"
    )]
    pub prompt: Option<String>,
    /// Continue or answer every prompt of a file: a line of text each, or records with `prompt`, `text`, `instruction`,
    /// `messages` or `conversations`; one JSON object comes out for each, in their order
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub prompts: Option<PathBuf>,
    /// Treat texts as the user's turn of a conversation; conversations are answered in any case
    #[arg(long)]
    pub chat: bool,
    /// Chat template: auto, model, alpaca, chatml, llama2, llama3, none, or a Jinja file
    #[arg(long, value_name = "NAME|FILE")]
    pub template: Option<TemplateChoice>,
    /// Format of --prompts [default: auto]
    #[arg(long, value_enum, requires = "prompts")]
    pub format: Option<DataFormat>,
    /// Read a field of --prompts from a column of another name, as prompt=question; may be given more than once
    #[arg(long, value_name = "FIELD=COLUMN", requires = "prompts")]
    pub field: Vec<FieldName>,
    /// Prompts that are continued at a time [default: 8]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, requires = "prompts")]
    pub batch_size: Option<usize>,
    /// Write what comes out of --prompts to this file, whole or not at all [default: standard output, as it comes]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "prompts")]
    pub out: Option<PathBuf>,
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

/// Checked options of `qft generate`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Folder or name of the model.
    pub model: ModelName,
    /// What is continued.
    pub prompts: Prompts,
    /// Whether texts are a user's turn.
    pub chat: bool,
    /// How the file is read, and how a conversation becomes text.
    pub reading: ReadingOptions,
    /// How the next token is chosen.
    pub sampling: SamplingOptions,
    /// How weights are stored and computed with.
    pub state: StateOptions,
    /// Where to compute.
    pub machine: MachineOptions,
}

/// What is continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompts {
    /// This text.
    One(String),
    /// The prompts of a file.
    Many {
        /// The file.
        path: PathBuf,
        /// Prompts at a time.
        together: usize,
        /// Where their continuations go; absent: to standard output.
        out: Option<PathBuf>,
    },
}

impl GenerateArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(self) -> Result<GenerateOptions> {
        self.check().of_kind(ErrorKind::Options)
    }

    fn check(self) -> Result<GenerateOptions> {
        ensure!(self.batch_size != Some(0), "--batch-size is 0; give at least 1 prompt");
        ensure!(
            self.template.is_none() || self.chat || self.prompts.is_some(),
            "--template is about conversations; give --chat as well"
        );
        let many = [
            ("--out", self.out.is_some()),
            ("--format", self.format.is_some()),
            ("--field", !self.field.is_empty()),
            ("--batch-size", self.batch_size.is_some()),
        ];
        if let Some((name, _)) = many.into_iter().find(|(_, given)| *given && self.prompt.is_some())
        {
            bail!("{name} is about --prompts; leave it out, or give a file of prompts");
        }
        let prompts = match (self.prompt, self.prompts) {
            (Some(text), _) => Prompts::One(text),
            (None, path) => Prompts::Many {
                path: path.unwrap_or_default(),
                together: self.batch_size.unwrap_or(8),
                out: self.out,
            },
        };
        let (format, template, field) = (self.format, self.template, self.field);
        let reading = ReadingArgs { format, template, field, ..ReadingArgs::default() };
        Ok(GenerateOptions {
            model: self.model,
            prompts,
            chat: self.chat,
            reading: reading.resolve(),
            sampling: self.sampling.resolve(SamplingOptions::TEXT)?,
            state: self.weights.resolve_writing()?,
            machine: self.machine.resolve(MemoryArgs::default())?,
        })
    }
}
