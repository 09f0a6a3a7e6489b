//! The options of `qft plan`.

use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::states::{BackwardArgs, StateArgs, StateOptions, UpdateArgs, WeightArgs};
use super::step::{AccumulateArgs, BatchArgs, StepOptions};
use super::training::{OptimizerKind, RuleArgs};
use super::value::whole;
use crate::error::{ErrorKind, OfKind, Result, ensure};
use clap::ValueHint;
use qft_hub::ModelName;

/// Options of `qft plan`, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct PlanArgs {
    /// Folder with a config.json, a name in the Hugging Face hub (org/name, org/name@revision), or that of a well-known
    /// model such as llama-2-7b
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath)]
    pub model: ModelName,
    /// The sequences of a micro-batch.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// The micro-batches of a step.
    #[command(flatten)]
    pub accumulate: AccumulateArgs,
    /// The rule of the optimizer.
    #[command(flatten)]
    pub rule: RuleArgs,
    /// How weights are stored and multiplied.
    #[command(flatten)]
    pub weights: WeightArgs,
    /// What the backward pass keeps.
    #[command(flatten)]
    pub backward: BackwardArgs,
    /// Where to compute.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// How much memory it may take.
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Of each of so many processes that share the run, as mpirun starts them [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub ranks: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Checked options of `qft plan`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanOptions {
    /// Folder with a `config.json`, or the name of a model in the hub or of a well-known one.
    pub model: ModelName,
    /// The shape of a step.
    pub step: StepOptions,
    /// The optimizer's rule.
    pub optimizer: OptimizerKind,
    /// The states.
    pub state: StateOptions,
    /// Where the run would compute.
    pub machine: MachineOptions,
    /// Processes that share the run.
    pub ranks: usize,
    /// Whether to print JSON.
    pub json: bool,
}

impl PlanArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(self) -> Result<PlanOptions> {
        self.check().of_kind(ErrorKind::Options)
    }

    fn check(self) -> Result<PlanOptions> {
        let optimizer = self.rule.optimizer.unwrap_or_default();
        let step = self.batch.resolve(self.accumulate)?;
        let (ranks, accumulate) = (self.ranks.unwrap_or(1), step.accumulate);
        ensure!(ranks > 0, "--ranks is 0; give at least 1 process");
        ensure!(
            accumulate >= ranks,
            "--accumulate: a step of {accumulate} micro-batches cannot be shared by {ranks} processes; give {ranks} or more"
        );
        let (weights, backward) = (self.weights, self.backward);
        let states = StateArgs { weights, backward, update: UpdateArgs::default() };
        Ok(PlanOptions {
            model: self.model,
            step,
            optimizer,
            state: states.resolve(optimizer)?,
            machine: self.machine.resolve(self.memory)?,
            ranks,
            json: self.json,
        })
    }
}
