//! Memory, before anything is loaded: loading, a step and saving by the real code, on a device that only counts.

use crate::checkpoint;
use crate::optimizer::OptimizerConfig;
use crate::trainer::{GradientMode, Trainer};
use anyhow::Result;
use qft_llama::config::LlamaConfig;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::pass::PassOptions;
use qft_llama::{Batch, export};
use qft_tensor::{Device, MemoryReport, Planner};
use serde::Serialize;

/// Everything that decides how a model is stored and trained, apart from its data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// How matrices are stored.
    pub format: WeightFormat,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// How passes compute.
    pub pass: PassOptions,
    /// What happens to gradients.
    pub gradients: GradientMode,
}

/// The shape of a step's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepShape {
    /// Tokens per sequence.
    pub seq_len: usize,
    /// Sequences per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
}

/// Bytes of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of all training states per parameter: weights, residual, outliers and their indices, scales,
    /// momentum, and the gradient if it is kept.
    pub bytes_per_parameter: f64,
    /// Bytes per owner at the moment of the peak.
    pub owners: Vec<OwnerBytes>,
    /// The most bytes in use at a time.
    pub peak_bytes: u64,
    /// The most bytes taken from the system: in use, or kept for reuse.
    pub reserved_bytes: u64,
}

/// Bytes of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnerBytes {
    /// The owner's name.
    pub owner: &'static str,
    /// Its bytes at the moment of the run's peak.
    pub bytes: u64,
    /// The most it has at any time.
    pub peak_bytes: u64,
}

impl MemoryPlan {
    /// From the ledger of a device on which at least one step was done.
    pub fn from_report(
        report: &MemoryReport,
        config: &LlamaConfig,
        gradients: GradientMode,
    ) -> Self {
        let states: u64 = (report.owners.iter())
            .filter(|(owner, ..)| owner.is_state())
            .map(|&(_, current, _)| current)
            .sum();
        let kept = match gradients {
            GradientMode::Released => 0,
            GradientMode::Stored => stored_gradient_bytes(config),
        };
        let owners = (report.owners.iter().zip(&report.at_peak))
            .map(|(&(owner, _, peak_bytes), &(_, bytes))| OwnerBytes {
                owner: owner.name(),
                bytes,
                peak_bytes,
            })
            .collect();
        let parameters = config.parameters();
        Self {
            parameters,
            bytes_per_parameter: (states + kept) as f64 / parameters as f64,
            owners,
            peak_bytes: report.peak_bytes,
            reserved_bytes: report.peak_reserved_bytes,
        }
    }
}

/// Bytes of the gradient stack when it is full: INT8 and a scale per row for matrices, f32 for vectors.
fn stored_gradient_bytes(config: &LlamaConfig) -> u64 {
    let bytes = |t: qft_llama::TensorSpec| match t.kind {
        qft_llama::TensorKind::Matrix => t.elements() + 4 * t.rows,
        qft_llama::TensorKind::Vector => 4 * t.elements(),
    };
    config.tensors().map(|t| bytes(t) as u64).sum()
}

/// The memory of training `config` with `setup` on steps of `shape`.
pub fn plan(config: &LlamaConfig, setup: &Setup, shape: StepShape) -> Result<MemoryPlan> {
    let planner = Planner::default();
    let model = Model::plan(&planner, config, setup.format)?;
    let mut trainer = Trainer::new(&planner, model, setup.optimizer, setup.pass, setup.gradients)?;
    let batches = vec![full_batch(shape); shape.accumulate];
    trainer.step(&planner, &batches, 0.0)?;
    checkpoint::plan(&planner, &mut trainer);
    export::plan(planner.ledger(), config, &mut export::rows_of(&trainer.model, &planner))?;
    let report = planner.ledger().report();
    Ok(MemoryPlan::from_report(&report, config, setup.gradients))
}

/// A micro-batch of full length in which every position has a target.
pub fn full_batch(shape: StepShape) -> Batch {
    let mut batch = Batch::default();
    let ids = vec![0; shape.seq_len];
    for _ in 0..shape.batch_size {
        batch.push(&ids, &ids);
    }
    batch
}
