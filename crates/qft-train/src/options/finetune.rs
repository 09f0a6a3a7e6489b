//! The options of `qft finetune`, all groups together.

use super::cache::{CacheArgs, CacheOptions};
use super::data::{LayoutArgs, LayoutOptions, ReadingArgs, ReadingOptions};
use super::files::{FileArgs, FileOptions, HeldOut};
use super::job::{JobArgs, JobOptions};
use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::progress::{ProgressArgs, ProgressOptions};
use super::settings;
use super::states::{BackwardArgs, StateArgs, StateOptions, UpdateArgs, WeightArgs};
use super::step::{AccumulateArgs, BatchArgs, StepOptions};
use super::training::{TrainingArgs, TrainingOptions};
use crate::error::{ErrorKind, OfKind, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Options of `qft finetune`, as given; also the keys of its settings file.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct FinetuneArgs {
    /// TOML file with the same options, without the leading dashes; options on the command line win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Print all options as such a file, what is not given as a comment with its default, and do nothing else
    #[arg(long)]
    #[serde(skip)]
    pub print_config: bool,
    /// What it reads and where it writes.
    #[command(flatten)]
    #[serde(flatten)]
    pub files: FileArgs,
    /// How the data is read.
    #[command(flatten)]
    #[serde(flatten)]
    pub reading: ReadingArgs,
    /// Where encoded data is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub cache: CacheArgs,
    /// The sequences of a micro-batch.
    #[command(flatten)]
    #[serde(flatten)]
    pub batch: BatchArgs,
    /// How the data is laid out.
    #[command(flatten)]
    #[serde(flatten)]
    pub layout: LayoutArgs,
    /// The micro-batches of a step.
    #[command(flatten)]
    #[serde(flatten)]
    pub accumulate: AccumulateArgs,
    /// How long the run is and how its weights change.
    #[command(flatten)]
    #[serde(flatten)]
    pub training: TrainingArgs,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    #[serde(flatten)]
    pub weights: WeightArgs,
    /// What the backward pass keeps.
    #[command(flatten)]
    #[serde(flatten)]
    pub backward: BackwardArgs,
    /// How INT8 states change.
    #[command(flatten)]
    #[serde(flatten)]
    pub update: UpdateArgs,
    /// Where to compute.
    #[command(flatten)]
    #[serde(flatten)]
    pub machine: MachineArgs,
    /// How much memory it may take.
    #[command(flatten)]
    #[serde(flatten)]
    pub memory: MemoryArgs,
    /// The processes of its job.
    #[command(flatten)]
    #[serde(flatten)]
    pub job: JobArgs,
    /// What it reports and keeps along the way.
    #[command(flatten)]
    #[serde(flatten)]
    pub progress: ProgressArgs,
}

/// Checked options of `qft finetune`.
///
/// [`crate::run::Recipe`] takes it apart to the last field: a new option must be sorted there.
#[derive(Debug, Clone, PartialEq)]
pub struct FinetuneOptions {
    /// What it reads and where it writes.
    pub files: FileOptions,
    /// How data is read.
    pub reading: ReadingOptions,
    /// Where encoded data is kept.
    pub cache: CacheOptions,
    /// How it is laid out.
    pub layout: LayoutOptions,
    /// The shape of a step.
    pub step: StepOptions,
    /// How long the run is and how its weights change.
    pub training: TrainingOptions,
    /// The states.
    pub state: StateOptions,
    /// Where to compute.
    pub machine: MachineOptions,
    /// The processes of its job.
    pub job: JobOptions,
    /// What it reports and keeps along the way.
    pub progress: ProgressOptions,
}

impl FinetuneArgs {
    /// Reads the settings file, fills in the defaults and checks the whole.
    ///
    /// Errors: a settings file that cannot be read, an unknown key, a value out of its range, options that
    /// exclude each other.
    pub fn resolve(self) -> Result<FinetuneOptions> {
        settings::merge(self).and_then(Self::resolve_merged).of_kind(ErrorKind::Options)
    }

    /// As [`FinetuneArgs::resolve`], where the settings file has been read.
    pub(super) fn resolve_merged(self) -> Result<FinetuneOptions> {
        let files = self.files.resolve()?;
        let training = self.training.resolve()?;
        let states =
            StateArgs { weights: self.weights, backward: self.backward, update: self.update };
        let progress = self.progress.resolve(files.held_out != HeldOut::None)?;
        ensure!(
            progress.resume.is_none() || !files.overwrite,
            "--resume and --overwrite cannot be used together: one continues the run in the output folder, the other \
             removes it"
        );
        let state = states.resolve(training.optimizer.kind)?;
        let mut machine = self.machine;
        let job = self.job.resolve(&mut machine)?;
        ensure!(
            state.states.is_int8() || !progress.diagnostics,
            "--diagnostics is about INT8 states, and --states f32 has none; leave it out, or choose --states full, \
             balanced, compact, tiny or paper"
        );
        Ok(FinetuneOptions {
            reading: self.reading.resolve(),
            cache: self.cache.resolve()?,
            layout: self.layout.resolve(),
            step: self.batch.resolve(self.accumulate)?,
            state,
            machine: machine.resolve(self.memory)?,
            job,
            files,
            training,
            progress,
        })
    }
}
