//! The options of `qft eval`.

use super::cache::{CacheArgs, CacheOptions};
use super::data::{ReadingArgs, ReadingOptions};
use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::states::{StateOptions, WeightArgs};
use super::step::{AccumulateArgs, BatchArgs, StepOptions};
use super::value::whole;
use crate::error::{Result, ensure};
use std::path::PathBuf;

/// Options of `qft eval`, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct EvalArgs {
    /// Model folder: config.json, safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Data: text, JSON, JSON lines, CSV or Parquet, also packed by gzip or zstd; a file, a folder, or a pattern in
    /// quotes; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    pub data: Vec<PathBuf>,
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
    /// Use at most this many batches [default: all]
    #[arg(long, value_name = "BATCHES", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub limit: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Checked options of `qft eval`.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// Model folder.
    pub model: PathBuf,
    /// Data.
    pub data: Vec<PathBuf>,
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

impl EvalArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(self) -> Result<EvalOptions> {
        ensure!(self.limit != Some(0), "--limit is 0; give at least 1 batch, or leave it out");
        Ok(EvalOptions {
            model: self.model,
            data: self.data,
            reading: self.reading.resolve(),
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
