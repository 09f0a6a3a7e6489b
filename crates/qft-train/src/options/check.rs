//! The rules that options obey, alone and together.

use super::choice::{
    ComputeKind, GradientChoice, MomentumChoice, OptimizerKind, RoundingChoice, States,
};
use super::value::{Length, Warmup};
use super::{
    DEFAULT_BATCH_SIZE, DEFAULT_SEQ_LEN, DataOptions, HeldOut, MAX_OUTLIERS, MachineOptions,
    OptimizerOptions, StateOptions, StepOptions,
};
use crate::args::{BackwardArgs, FinetuneArgs, MachineArgs, ReadingArgs, RowArgs, WeightArgs};
use anyhow::{Context, Result, bail, ensure};
use qft_tensor::MAX_MICRO_BATCHES;
use std::path::{Path, PathBuf};

/// What to say where an option is missing that there is no default for.
pub(super) fn missing(name: &str, value: &str) -> String {
    format!(
        "--{name}: is missing; give --{name} {value}, or `{name} = \"{value}\"` in the settings file"
    )
}

pub(super) fn given(path: Option<PathBuf>, name: &str, value: &str) -> Result<PathBuf> {
    path.with_context(|| missing(name, value))
}

/// Whether both paths lead to the same folder, however they are spelled.
pub(super) fn same_folder(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

pub(super) fn reading(args: ReadingArgs) -> DataOptions {
    DataOptions {
        format: args.format.unwrap_or_default(),
        template: args.template.unwrap_or_default(),
        train_on: args.train_on.unwrap_or_default(),
    }
}

pub(super) fn machine(args: MachineArgs) -> Result<MachineOptions> {
    let threads = args.threads;
    ensure!(threads != Some(0), "--threads: is 0; give at least 1, or leave it out for all cores");
    Ok(MachineOptions { device: args.device.unwrap_or_default(), threads })
}

pub(super) fn step_options(rows: &RowArgs, accumulate: Option<usize>) -> Result<StepOptions> {
    let RowArgs { seq_len, batch_size } = *rows;
    ensure!(seq_len != Some(0), "--seq-len: is 0; give the number of tokens per row, such as 512");
    ensure!(batch_size != Some(0), "--batch-size: is 0; give at least 1 row per micro-batch");
    ensure!(accumulate != Some(0), "--accumulate: is 0; give 1 for no accumulation");
    let batch_size = batch_size.unwrap_or(DEFAULT_BATCH_SIZE);
    let accumulate = accumulate.unwrap_or(1);
    ensure!(
        accumulate <= MAX_MICRO_BATCHES,
        "--accumulate: at most {MAX_MICRO_BATCHES} micro-batches have random numbers of their own, {accumulate} were \
         asked for; raise --batch-size"
    );
    let tokens = [batch_size, accumulate, seq_len.unwrap_or(DEFAULT_SEQ_LEN)]
        .into_iter()
        .try_fold(1usize, |product, factor| product.checked_mul(factor))
        .filter(|&tokens| tokens <= u32::MAX as usize);
    ensure!(
        tokens.is_some(),
        "--batch-size {batch_size} with --accumulate {accumulate}: more tokens in a step than can be counted; \
         make one of them smaller"
    );
    Ok(StepOptions { seq_len, batch_size, accumulate })
}

pub(super) fn seq_len(asked: Option<usize>, limit: usize) -> Result<usize> {
    match asked {
        Some(asked) if asked > limit => bail!(
            "--seq-len: {asked} is longer than the model's limit of {limit} positions \
             (max_position_embeddings); give at most {limit}"
        ),
        Some(asked) => Ok(asked),
        None => Ok(DEFAULT_SEQ_LEN.min(limit)),
    }
}

pub(super) fn length(steps: Option<u64>, epochs: Option<f64>) -> Result<Length> {
    match (steps, epochs) {
        (Some(_), Some(_)) => bail!("--steps and --epochs exclude each other; give one of them"),
        (Some(0), None) => bail!("--steps: is 0; give at least 1, or `qft eval` to train nothing"),
        (Some(steps), None) if steps > u32::MAX.into() => {
            bail!("--steps: {steps} is beyond the limit of {}", u32::MAX)
        }
        (Some(steps), None) => Ok(Length::Steps(steps)),
        (None, epochs) => {
            let epochs = epochs.unwrap_or(1.0);
            ensure!(
                epochs > 0.0 && epochs <= 1e6,
                "--epochs: {epochs} is not a number above 0, up to a million"
            );
            Ok(Length::Epochs(epochs))
        }
    }
}

pub(super) fn held_out(args: &FinetuneArgs) -> Result<HeldOut> {
    match (args.eval_data.as_slice(), args.val_split) {
        ([], None) => Ok(HeldOut::None),
        (files, None) => Ok(HeldOut::Files(files.to_vec())),
        ([], Some(fraction)) => {
            ensure!(
                fraction > 0.0 && fraction < 1.0,
                "--val-split: {fraction} is not between 0 and 1; 0.05 holds out the last 5 %"
            );
            Ok(HeldOut::Split(fraction))
        }
        (_, Some(_)) => bail!(
            "--eval-data and --val-split exclude each other; give a file, or a fraction of the training data"
        ),
    }
}

pub(super) fn optimizer(args: &FinetuneArgs, length: Length) -> Result<OptimizerOptions> {
    let kind = args.update.optimizer.unwrap_or_default();
    let (lr, beta1, beta2) = match kind {
        OptimizerKind::Lion => (1e-5, 0.95, 0.98),
        OptimizerKind::AdamW => (2e-5, 0.9, 0.999),
    };
    let lr = args.lr.unwrap_or(lr);
    ensure!(lr > 0.0 && lr <= 1.0, "--lr: {lr} is not above 0 and at most 1; 1e-5 is usual");
    let (beta1, beta2) = (args.beta1.unwrap_or(beta1), args.beta2.unwrap_or(beta2));
    for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
        // Checked as the optimizer will see it: a number just below 1 may round up to it.
        ensure!(
            (0.0..1.0).contains(&beta) && (beta as f32) < 1.0,
            "--{name}: {beta} is not at least 0 and below 1; leave it out for the default"
        );
    }
    let weight_decay = args.weight_decay.unwrap_or(0.0);
    ensure!((0.0..=1.0).contains(&weight_decay), "--weight-decay: {weight_decay} is not 0 to 1");
    let min_lr_ratio = args.min_lr_ratio.unwrap_or(0.0);
    ensure!((0.0..=1.0).contains(&min_lr_ratio), "--min-lr-ratio: {min_lr_ratio} is not 0 to 1");
    if let Some(norm) = args.max_grad_norm {
        ensure!(norm > 0.0, "--max-grad-norm: {norm} is not above 0; leave it out not to clip");
    }
    let warmup = args.warmup.unwrap_or(Warmup::Fraction(0.03));
    if let (Warmup::Steps(warmup), Length::Steps(steps)) = (warmup, length) {
        ensure!(
            warmup <= steps,
            "--warmup: {warmup} steps are more than the run's {steps}; \
             give fewer, or a fraction such as 0.03"
        );
    }
    Ok(OptimizerOptions {
        kind,
        lr,
        weight_decay: weight_decay as f32,
        beta1: beta1 as f32,
        beta2: beta2 as f32,
        schedule: args.schedule.unwrap_or_default(),
        min_lr_ratio,
        warmup,
        max_grad_norm: args.max_grad_norm,
    })
}

/// What was asked of the states.
pub(super) struct StateChoices {
    pub(super) optimizer: OptimizerKind,
    pub(super) weights: WeightArgs,
    pub(super) backward: BackwardArgs,
    pub(super) momentum_code: Option<MomentumChoice>,
    pub(super) rounding: Option<RoundingChoice>,
}

pub(super) fn state(asked: StateChoices) -> Result<StateOptions> {
    let WeightArgs { states, compute, outliers } = asked.weights;
    let BackwardArgs { recompute, gradients } = asked.backward;
    let states = states.unwrap_or_default();
    ensure!(
        asked.optimizer == OptimizerKind::Lion || !states.is_int8(),
        "--optimizer adamw: INT8 states are trained by lion only; \
         give --optimizer lion, or --states f32 for the float reference"
    );
    if let Some(outliers) = outliers {
        ensure!(
            (0.0..=MAX_OUTLIERS).contains(&outliers),
            "--outliers: {outliers} is not a fraction from 0 to {MAX_OUTLIERS}; 0.01 is 1 %"
        );
    }
    if !states.is_int8() {
        for (set, what) in [
            (gradients == Some(GradientChoice::Stored), "--gradients stored"),
            (compute == Some(ComputeKind::Int8), "--compute int8"),
            (outliers.is_some_and(|fraction| fraction > 0.0), "--outliers"),
            (asked.momentum_code.is_some(), "--momentum-code"),
            (asked.rounding.is_some(), "--rounding"),
        ] {
            ensure!(
                !set,
                "{what}: is about INT8 states, and --states f32 has none; leave it out, or choose \
                 --states full, balanced, compact or paper"
            );
        }
    }
    let (usual_compute, usual_gradients) = match states {
        States::F32 => (ComputeKind::Float, GradientChoice::Released),
        States::Paper => (ComputeKind::Int8, GradientChoice::Stored),
        _ => (ComputeKind::Int8, GradientChoice::Released),
    };
    Ok(StateOptions {
        states,
        compute: compute.unwrap_or(usual_compute),
        outliers,
        recompute: recompute.unwrap_or_default(),
        gradients: gradients.unwrap_or(usual_gradients),
        momentum_code: asked.momentum_code.unwrap_or_default(),
        rounding: asked.rounding.unwrap_or_default(),
    })
}

/// For commands that only read the weights: f32 unless asked for otherwise.
pub(super) fn weights_only(args: WeightArgs) -> Result<StateOptions> {
    state(StateChoices {
        optimizer: OptimizerKind::Lion,
        weights: WeightArgs { states: args.states.or(Some(States::F32)), ..args },
        backward: BackwardArgs::default(),
        momentum_code: None,
        rounding: None,
    })
}
