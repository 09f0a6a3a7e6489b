//! The options of a run: filled in, checked, typed. What is wrong with them is said here, before anything is
//! loaded.

mod check;
pub mod choice;
mod settings;
#[cfg(test)]
mod tests;
pub mod value;

use crate::args::{EvalArgs, FinetuneArgs, GenerateArgs, PlanArgs};
use anyhow::{Result, ensure};
use check::{
    StateChoices, given, held_out, length, machine, missing, optimizer, reading, same_folder,
    seq_len, state, step_options, weights_only,
};
use choice::{
    ComputeKind, DataFormat, GradientChoice, LrSchedule, MomentumChoice, OptimizerKind,
    RecomputeChoice, RoundingChoice, States, TrainOn,
};
use serde::Serialize;
use std::path::PathBuf;
use value::{DeviceChoice, Length, Resume, TemplateChoice, Warmup};

/// The default number of tokens per row.
pub const DEFAULT_SEQ_LEN: usize = 512;

/// The default number of rows per micro-batch.
pub const DEFAULT_BATCH_SIZE: usize = 4;

/// The largest fraction of protected features.
pub const MAX_OUTLIERS: f64 = qft_quant::hybrid::MAX_OUTLIER_FRACTION;

/// How data is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataOptions {
    /// Format of the records.
    pub format: DataFormat,
    /// How conversations become text.
    pub template: TemplateChoice,
    /// Tokens that count in the loss.
    pub train_on: TrainOn,
}

/// Where held-out data comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum HeldOut {
    /// There is none: no evaluation.
    None,
    /// These files.
    Files(Vec<PathBuf>),
    /// The last fraction of the training data.
    Split(f64),
}

/// Hyper-parameters of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OptimizerOptions {
    /// The rule.
    pub kind: OptimizerKind,
    /// Largest learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Weight of the momentum (first moment).
    pub beta1: f32,
    /// Decay of the momentum (second moment of AdamW).
    pub beta2: f32,
    /// Schedule after the warm-up.
    pub schedule: LrSchedule,
    /// Where the schedule ends, as a fraction of `lr`.
    pub min_lr_ratio: f64,
    /// Warm-up.
    pub warmup: Warmup,
    /// Largest global norm of the gradient.
    pub max_grad_norm: Option<f64>,
}

/// How training states are stored and computed with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StateOptions {
    /// The mode.
    pub states: States,
    /// Numbers of linear layers.
    pub compute: ComputeKind,
    /// Fraction of protected features; absent: as `states` has it.
    pub outliers: Option<f64>,
    /// What is computed again.
    pub recompute: RecomputeChoice,
    /// What happens to gradients.
    pub gradients: GradientChoice,
    /// Code of the momentum.
    pub momentum_code: MomentumChoice,
    /// Rounding of updated weights.
    pub rounding: RoundingChoice,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MachineOptions {
    /// Device.
    pub device: DeviceChoice,
    /// CPU threads; absent: all cores.
    pub threads: Option<usize>,
}

/// The shape of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepOptions {
    /// Tokens per row, if given.
    pub seq_len: Option<usize>,
    /// Rows per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
}

impl StepOptions {
    /// Tokens per row for a model with `limit` positions.
    ///
    /// Errors: more were asked for than the model has.
    pub fn seq_len(&self, limit: usize) -> Result<usize> {
        seq_len(self.seq_len, limit)
    }

    /// Rows per optimizer step.
    pub fn rows_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }
}

/// Checked options of `qft finetune`.
#[derive(Debug, Clone, PartialEq)]
pub struct FinetuneOptions {
    /// Model folder.
    pub model: PathBuf,
    /// Training data.
    pub data: Vec<PathBuf>,
    /// Held-out data.
    pub held_out: HeldOut,
    /// Output folder.
    pub out: PathBuf,
    /// How data is read.
    pub reading: DataOptions,
    /// Whether short documents share rows.
    pub pack: bool,
    /// Whether rows come in a random order.
    pub shuffle: bool,
    /// How long the run is.
    pub length: Length,
    /// The shape of a step.
    pub step: StepOptions,
    /// The optimizer.
    pub optimizer: OptimizerOptions,
    /// The states.
    pub state: StateOptions,
    /// Whether to train where updates cannot land.
    pub insist: bool,
    /// Seed of the run.
    pub seed: u64,
    /// Where to compute.
    pub machine: MachineOptions,
    /// Steps between checkpoints.
    pub checkpoint_every: Option<u64>,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// The checkpoint to continue from.
    pub resume: Option<Resume>,
    /// Steps between evaluations.
    pub eval_every: Option<u64>,
    /// Batches of an evaluation at most.
    pub eval_batches: Option<usize>,
    /// Whether to show where the time goes.
    pub profile: bool,
    /// Text to continue before and after.
    pub sample_prompt: Option<String>,
}

impl FinetuneOptions {
    /// Reads the settings file, fills in the defaults and checks the whole.
    ///
    /// Errors: a settings file that cannot be read, an unknown key, a value out of its range, options that
    /// exclude each other.
    pub fn resolve(flags: FinetuneArgs) -> Result<Self> {
        let args = settings::merge(flags)?;
        let model = given(args.model.clone(), "model", "DIR")?;
        let out = given(args.out.clone(), "out", "DIR")?;
        ensure!(!args.data.is_empty(), missing("data", "FILE"));
        ensure!(
            !same_folder(&model, &out),
            "--out: {} is the model's folder, whose files must stay; choose another folder",
            out.display()
        );
        let step = step_options(&args.rows, args.update.accumulate)?;
        let length = length(args.steps, args.epochs)?;
        let held_out = held_out(&args)?;
        for (name, value) in
            [("checkpoint-every", args.checkpoint_every), ("eval-every", args.eval_every)]
        {
            ensure!(value != Some(0), "--{name}: is 0; give a number of steps, or leave it out");
        }
        ensure!(
            args.keep_checkpoints != Some(0),
            "--keep-checkpoints: is 0; at least 1 checkpoint is kept"
        );
        ensure!(args.eval_batches != Some(0), "--eval-batches: is 0; give at least 1");
        if held_out == HeldOut::None {
            for (name, set) in [
                ("eval-every", args.eval_every.is_some()),
                ("eval-batches", args.eval_batches.is_some()),
            ] {
                ensure!(
                    !set,
                    "--{name}: there is no held-out data; give --eval-data FILE or --val-split 0.05"
                );
            }
        }
        let optimizer = optimizer(&args, length)?;
        let state = state(StateChoices {
            optimizer: optimizer.kind,
            weights: args.weights,
            backward: args.backward,
            momentum_code: args.momentum_code,
            rounding: args.rounding,
        })?;
        Ok(Self {
            model,
            data: args.data,
            held_out,
            out,
            reading: reading(args.reading),
            pack: args.pack.unwrap_or(false),
            shuffle: !args.no_shuffle && args.shuffle.unwrap_or(true),
            length,
            step,
            optimizer,
            state,
            insist: args.insist.unwrap_or(false),
            seed: args.seed.unwrap_or(0),
            machine: machine(args.machine)?,
            checkpoint_every: args.checkpoint_every,
            keep_checkpoints: args.keep_checkpoints.unwrap_or(1),
            resume: args.resume.as_deref().map(Resume::from),
            eval_every: args.eval_every,
            eval_batches: args.eval_batches,
            profile: args.profile.unwrap_or(false),
            sample_prompt: args.sample_prompt,
        })
    }
}

/// Checked options of `qft eval`.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// Model folder.
    pub model: PathBuf,
    /// Data.
    pub data: Vec<PathBuf>,
    /// How data is read.
    pub reading: DataOptions,
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

impl EvalOptions {
    /// Fills in the defaults and checks the whole.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(args: EvalArgs) -> Result<Self> {
        ensure!(args.limit != Some(0), "--limit: is 0; give at least 1 batch, or leave it out");
        Ok(Self {
            model: args.model,
            data: args.data,
            reading: reading(args.reading),
            step: step_options(&args.rows, None)?,
            state: weights_only(args.weights)?,
            machine: machine(args.machine)?,
            profile: args.profile,
            limit: args.limit,
            json: args.json,
        })
    }
}

/// Checked options of `qft generate`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Model folder.
    pub model: PathBuf,
    /// The text.
    pub prompt: String,
    /// Whether it is a user's turn.
    pub chat: bool,
    /// How a conversation becomes text.
    pub template: TemplateChoice,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Temperature; 0 is greedy.
    pub temperature: f32,
    /// Probability mass to sample from.
    pub top_p: f32,
    /// Seed of the sampling.
    pub seed: u64,
    /// How weights are stored and computed with.
    pub state: StateOptions,
    /// Where to compute.
    pub machine: MachineOptions,
}

impl GenerateOptions {
    /// Fills in the defaults and checks the whole.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(args: GenerateArgs) -> Result<Self> {
        let temperature = args.temperature.unwrap_or(0.0);
        let top_p = args.top_p.unwrap_or(1.0);
        ensure!(
            temperature >= 0.0 && temperature.is_finite(),
            "--temperature: {temperature} is not 0 or more"
        );
        ensure!(top_p > 0.0 && top_p <= 1.0, "--top-p: {top_p} is not above 0 and at most 1");
        ensure!(
            top_p == 1.0 || temperature > 0.0,
            "--top-p: has no effect at temperature 0, which takes the likeliest token; \
             give --temperature as well"
        );
        Ok(Self {
            model: args.model,
            prompt: args.prompt,
            chat: args.chat,
            template: args.template.unwrap_or_default(),
            max_new_tokens: args.max_new_tokens.unwrap_or(200),
            temperature,
            top_p,
            seed: args.seed.unwrap_or(0),
            state: weights_only(args.weights)?,
            machine: machine(args.machine)?,
        })
    }
}

/// Checked options of `qft plan`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanOptions {
    /// Folder with a `config.json`, or the name of a well-known model.
    pub model: String,
    /// The shape of a step.
    pub step: StepOptions,
    /// The optimizer's rule.
    pub optimizer: OptimizerKind,
    /// The states.
    pub state: StateOptions,
    /// Where the run would compute.
    pub machine: MachineOptions,
    /// Whether to print JSON.
    pub json: bool,
}

impl PlanOptions {
    /// Fills in the defaults and checks the whole.
    ///
    /// Errors: a value out of its range, options that exclude each other.
    pub fn resolve(args: PlanArgs) -> Result<Self> {
        let optimizer = args.update.optimizer.unwrap_or_default();
        Ok(Self {
            model: args.model,
            step: step_options(&args.rows, args.update.accumulate)?,
            optimizer,
            state: state(StateChoices {
                optimizer,
                weights: args.weights,
                backward: args.backward,
                momentum_code: None,
                rounding: None,
            })?,
            machine: machine(args.machine)?,
            json: args.json,
        })
    }
}
