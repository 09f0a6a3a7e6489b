//! The options of `qft eval`.

use super::cache::{CacheArgs, CacheOptions};
use super::data::{ReadingArgs, ReadingOptions, TooLong};
use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::states::{StateOptions, WeightArgs};
use super::step::{AccumulateArgs, BatchArgs, StepOptions};
use super::value::whole;
use crate::error::{ErrorKind, OfKind, Result, ensure};
use clap::ValueHint;
use qft_hub::ModelName;
use std::path::PathBuf;

/// Options of `qft eval`, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct EvalArgs {
    /// Model: a folder with config.json, safetensors and tokenizer.json, or a name in the Hugging Face hub: org/name,
    /// org/name@revision; may be given more than once, to compare each with the first
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath, required = true)]
    pub model: Vec<ModelName>,
    /// Data for the loss: text, JSON, JSON lines, CSV or Parquet, also packed by gzip or zstd; a file, a folder, a pattern
    /// in quotes, or a name in the Hugging Face hub: org/name, org/name/part:split; may be given more than once
    #[arg(long, value_name = "FILE|NAME", value_hint = ValueHint::AnyPath)]
    pub data: Vec<PathBuf>,
    /// What is asked.
    #[command(flatten)]
    pub questions: QuestionArgs,
    /// How the data is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Where encoded data is kept.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// The sequences of a batch.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    pub weights: WeightArgs,
    /// Where to compute.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Show where the time goes
    #[arg(long)]
    pub profile: bool,
    /// Use at most this many batches of the data [default: all]
    #[arg(long, value_name = "BATCHES", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub limit: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What is asked, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct QuestionArgs {
    /// Questions to score as lm-evaluation-harness does: JSON lines with query, choices and gold, with context_options,
    /// continuation and gold, or with context and continuation; a file, or a folder of such files; may be given more than
    /// once
    #[arg(long, value_name = "FILE|DIR", help_heading = "Questions")]
    pub questions: Vec<PathBuf>,
    /// Ask the first N questions of each set [default: all]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, requires = "questions", help_heading = "Questions")]
    pub limit_questions: Option<usize>,
    /// Write every question's log-likelihoods to this file, a line of JSON each
    #[arg(long, value_name = "FILE", requires = "questions", help_heading = "Questions")]
    pub log_samples: Option<PathBuf>,
}

/// Checked options of `qft eval`.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// Folders or names of models; the others are compared with the first.
    pub models: Vec<ModelName>,
    /// Files and names of the data; may be empty.
    pub data: Vec<PathBuf>,
    /// What is asked.
    pub questions: QuestionOptions,
    /// How data is read.
    pub reading: ReadingOptions,
    /// Where encoded data is kept.
    pub cache: CacheOptions,
    /// The shape of a batch.
    pub step: StepOptions,
    /// How weights are stored and computed with.
    pub state: StateOptions,
    /// Where to compute.
    pub machine: MachineOptions,
    /// Whether to show where the time goes.
    pub profile: bool,
    /// Batches at most.
    pub limit: Option<usize>,
    /// Whether to print JSON.
    pub json: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionOptions {
    /// Files and folders; may be empty.
    pub paths: Vec<PathBuf>,
    /// Questions of each set at most.
    pub limit: Option<usize>,
    /// What becomes of a question that is too long; absent: it is an error.
    pub too_long: Option<TooLong>,
    /// Where the log-likelihoods go.
    pub log: Option<PathBuf>,
}

impl QuestionArgs {
    fn resolve(self, too_long: Option<TooLong>) -> Result<QuestionOptions> {
        let Self { questions, limit_questions, log_samples } = self;
        ensure!(
            limit_questions != Some(0),
            "--limit-questions is 0; give at least 1 question, or leave it out"
        );
        ensure!(
            questions.is_empty() || too_long != Some(TooLong::Split),
            "--too-long split cannot be used with --questions, which have no parts; give cut or drop"
        );
        Ok(QuestionOptions { paths: questions, limit: limit_questions, too_long, log: log_samples })
    }
}

impl EvalArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range, options that exclude each other, nothing to measure.
    pub fn resolve(self) -> Result<EvalOptions> {
        self.check().of_kind(ErrorKind::Options)
    }

    fn check(self) -> Result<EvalOptions> {
        ensure!(self.limit != Some(0), "--limit is 0; give at least 1 batch, or leave it out");
        ensure!(
            !self.data.is_empty() || !self.questions.questions.is_empty(),
            "there is nothing to measure; give --data FILE for the loss, --questions FILE|DIR for scores, or both"
        );
        let reading = self.reading.resolve();
        Ok(EvalOptions {
            models: self.model,
            data: self.data,
            questions: self.questions.resolve(reading.too_long)?,
            reading,
            cache: self.cache.resolve()?,
            step: self.batch.resolve(AccumulateArgs::default())?,
            state: self.weights.resolve_reading()?,
            machine: self.machine.resolve(MemoryArgs::default())?,
            profile: self.profile,
            limit: self.limit,
            json: self.json,
        })
    }
}
