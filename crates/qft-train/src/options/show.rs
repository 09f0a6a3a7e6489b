//! The options of `qft data show`.

use super::cache::{CacheArgs, CacheOptions};
use super::data::{ReadingArgs, ReadingOptions};
use super::step::{AccumulateArgs, BatchArgs, StepOptions};
use super::value::whole;
use crate::error::{ErrorKind, OfKind, Result, ensure};
use clap::ColorChoice;
use clap::ValueHint;
use qft_hub::ModelName;
use std::path::PathBuf;

/// Documents that are shown unless another number is given.
const DEFAULT_COUNT: usize = 3;

/// Options of `qft data show`, as given.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ShowArgs {
    /// Model: a folder with config.json and tokenizer.json, or a name in the Hugging Face hub: org/name,
    /// org/name@revision; its weights are not read
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath)]
    pub model: ModelName,
    /// Data, as `qft finetune` takes it; may be given more than once
    #[arg(long, value_name = "FILE|NAME", value_hint = ValueHint::AnyPath, required = true)]
    pub data: Vec<PathBuf>,
    /// How the data is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Where encoded data is kept.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Tokens per sequence [default: 512, or the model's limit if that is less]
    #[arg(long, value_name = "TOKENS", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Data")]
    pub seq_len: Option<usize>,
    /// The first document to show, counted from 1 [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub from: Option<usize>,
    /// Documents to show; 0 for the statistics alone [default: 3]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub count: Option<usize>,
    /// Show each token on a line: whether it is learned, its id, and its text
    #[arg(long)]
    pub ids: bool,
    /// Colour what is learned, instead of marking it as ⟦learned⟧
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// Checked options of `qft data show`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShowOptions {
    /// Folder or name of the model.
    pub model: ModelName,
    /// Files and names of the data.
    pub data: Vec<PathBuf>,
    /// How data is read.
    pub reading: ReadingOptions,
    /// Where encoded data is kept.
    pub cache: CacheOptions,
    /// The length of sequences.
    pub step: StepOptions,
    /// The first document, counted from 0.
    pub first: usize,
    /// How many documents.
    pub count: usize,
    /// Whether to show tokens.
    pub ids: bool,
    /// Whether to use colours.
    pub color: ColorChoice,
}

impl ShowArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(self) -> Result<ShowOptions> {
        self.check().of_kind(ErrorKind::Options)
    }

    fn check(self) -> Result<ShowOptions> {
        ensure!(self.from != Some(0), "--from is 0; documents are counted from 1");
        let batch = BatchArgs { seq_len: self.seq_len, batch_size: None };
        Ok(ShowOptions {
            model: self.model,
            data: self.data,
            reading: self.reading.resolve(),
            cache: self.cache.resolve()?,
            step: batch.resolve(AccumulateArgs::default())?,
            first: self.from.unwrap_or(1) - 1,
            count: self.count.unwrap_or(DEFAULT_COUNT),
            ids: self.ids,
            color: self.color,
        })
    }
}
