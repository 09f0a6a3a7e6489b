//! A model in training: one optimizer step at a time.

use super::TrainOps;
use super::diagnostics::Diagnostics;
use super::optimizer::{Optimizer, OptimizerConfig, StepNumbers, UpdateReport};
use super::sinks::{ReleasedSink, StoredSink};
use crate::error::Result;
use clap::ValueEnum;
use qft_llama::Batch;
use qft_llama::model::Model;
use qft_llama::pass::{self, Loss, PassOptions};
use qft_tensor::Communicator;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What happens to gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientMode {
    /// Each block of rows updates its weights as soon as it is known, and is dropped.
    Released,
    /// The whole gradient is kept in INT8 on a stack, then applied: exact clipping.
    Stored,
}

/// A model, its optimizer, and how they compute.
#[derive(Debug)]
pub struct Trainer {
    /// The parameters.
    pub model: Model,
    /// Their optimizer.
    pub optimizer: Optimizer,
    /// How passes compute; `step` is kept here.
    pub pass: PassOptions,
    /// What happens to gradients.
    pub gradients: GradientMode,
    /// Of the last step.
    shapes: Vec<BatchShape>,
}

/// What decides the sizes of a pass's buffers: tokens, and those of them that have a target.
type BatchShape = (usize, usize);

fn shape(batch: &Batch) -> BatchShape {
    (batch.tokens(), batch.target_tokens())
}

/// What one step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// The loss before the update.
    pub loss: Loss,
    /// What the update did.
    pub update: UpdateReport,
}

impl Trainer {
    /// A trainer at step 0.
    pub fn new(
        ops: &dyn TrainOps,
        model: Model,
        optimizer: OptimizerConfig,
        pass: PassOptions,
        gradients: GradientMode,
    ) -> Result<Self> {
        let optimizer = Optimizer::new(ops, &model, optimizer)?;
        Ok(Self { model, optimizer, pass, gradients, shapes: Vec::new() })
    }

    /// One optimizer step over all `batches` at learning rate `lr`.
    ///
    /// Errors: a loss that is not finite ends the step before any parameter has changed.
    pub fn step(&mut self, ops: &dyn TrainOps, batches: &[Batch], lr: f32) -> Result<StepReport> {
        // Blocks that are kept for reuse fit one shape: those of another would pile up beside them.
        let shapes: Vec<_> = batches.iter().map(shape).collect();
        if self.shapes != shapes {
            ops.trim();
            self.shapes = shapes;
        }
        let PassOptions { seed, step, .. } = self.pass;
        let numbers = StepNumbers { seed, step, lr };
        let (model, optimizer) = (&mut self.model, &mut self.optimizer);
        let (loss, update) = match self.gradients {
            GradientMode::Released => {
                let mut sink = ReleasedSink::new(ops, optimizer, numbers)?;
                let loss = pass::train_step(ops, model, &self.pass, batches, &mut sink)?;
                (loss, sink.finish()?)
            }
            GradientMode::Stored => {
                let mut sink = StoredSink::new(ops, numbers);
                let loss = pass::train_step(ops, model, &self.pass, batches, &mut sink)?;
                (loss, sink.apply(ops, optimizer, model, numbers)?)
            }
        };
        self.pass.step += 1;
        Ok(StepReport { loss, update })
    }

    /// Samples rows from now on, for [`Optimizer::diagnostics`].
    pub fn diagnose(&mut self, ops: &dyn TrainOps) -> Result<()> {
        let (rule, seed) = (self.optimizer.config.rule, self.pass.seed);
        self.optimizer.diagnostics = Some(Diagnostics::new(ops, &self.model, rule, seed)?);
        Ok(())
    }

    /// The loss of `batches`. Processes of a job go round: each evaluates some of the batches, and all hear of all.
    ///
    /// Errors: the first that `batches` has.
    pub fn evaluate(
        &self,
        ops: &dyn TrainOps,
        batches: impl Iterator<Item = Result<Batch>>,
    ) -> Result<Loss> {
        let processes = ops.communicator();
        let (rank, size) = (processes.rank(), processes.size());
        if size == 1 {
            return evaluate(ops, &self.model, &self.pass, batches);
        }
        let (mut sums, mut correct) = (Vec::new(), Vec::new());
        let (mut all, mut count) = (0, 0);
        for (number, batch) in batches.enumerate() {
            let batch = batch?;
            (all, count) = (number + 1, count + batch.target_tokens());
            if number % size == rank {
                ops.trim();
                let losses = pass::evaluate(ops, &self.model, &self.pass, &batch)?;
                sums.push(losses.nll.iter().sum());
                correct.push(losses.correct as f64);
            }
        }
        ops.trim();
        let total = |values: &[f64]| -> Result<f64> {
            Ok(gather_round(processes, values, all)?.iter().sum())
        };
        Ok(Loss::of_sum(total(&sums)?, count, total(&correct)? as usize))
    }
}

/// All of `count` values that processes have in turn, of which this one has `own`.
fn gather_round(processes: &dyn Communicator, own: &[f64], count: usize) -> Result<Vec<f64>> {
    const SIZE: usize = size_of::<f64>();
    let (rank, size) = (processes.rank(), processes.size());
    let mut parts: Vec<Range<usize>> = Vec::new();
    for rank in 0..size {
        let start = parts.last().map_or(0, |part| part.end);
        parts.push(start..start + SIZE * ((count + size - 1 - rank) / size));
    }
    let mut bytes = vec![0; SIZE * count];
    for (bytes, value) in bytes[parts[rank].clone()].as_chunks_mut::<SIZE>().0.iter_mut().zip(own) {
        *bytes = value.to_le_bytes();
    }
    processes.gather(&mut bytes, &parts)?;
    let value = |number: usize| {
        let start = parts[number % size].start + SIZE * (number / size);
        f64::from_le_bytes(std::array::from_fn(|i| bytes[start + i]))
    };
    Ok((0..count).map(value).collect())
}

/// The loss of `batches`.
pub fn evaluate(
    ops: &dyn TrainOps,
    model: &Model,
    options: &PassOptions,
    batches: impl Iterator<Item = Result<Batch>>,
) -> Result<Loss> {
    evaluate_each(ops, model, options, batches, &mut |_, _| ())
}

/// As [`evaluate`]; `each` sees every batch with the negative log-likelihood of each of its targets, in nats.
pub fn evaluate_each(
    ops: &dyn TrainOps,
    model: &Model,
    options: &PassOptions,
    batches: impl Iterator<Item = Result<Batch>>,
    each: &mut dyn FnMut(&Batch, &[f64]),
) -> Result<Loss> {
    let (mut sum, mut count, mut correct, mut last) = (0.0, 0, 0, None);
    for batch in batches {
        let batch = batch?;
        if last != Some(shape(&batch)) {
            ops.trim();
            last = Some(shape(&batch));
        }
        let losses = pass::evaluate(ops, model, options, &batch)?;
        sum += losses.nll.iter().sum::<f64>();
        (count, correct) = (count + losses.nll.len(), correct + losses.correct);
        each(&batch, &losses.nll);
    }
    ops.trim();
    Ok(Loss::of_sum(sum, count, correct))
}
