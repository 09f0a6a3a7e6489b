//! Memory, before anything is loaded: loading, a step and saving by the real code, on a device that only counts.

use super::arena;
use crate::error::Result;
use crate::step::rows::WholeRows;
use crate::step::snapshot::Snapshot;
use crate::step::{GradientMode, Setup, Trainer, checkpoint};
use qft_llama::Batch;
use qft_llama::config::LlamaConfig;
use qft_llama::export::{self, FillRows, WeightType};
use qft_llama::generate::Decoder;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::pass::{self, PassOptions};
use qft_tensor::{Communicator, Device, MemoryReport, Planner, RowShard};
use serde::Serialize;

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

/// One of the processes that share a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Whether their devices exchange between their memories.
    pub by_devices: bool,
}

impl Process {
    /// The only one.
    pub const ALONE: Self = Self { rank: 0, size: 1, by_devices: false };

    /// The one that has this device.
    pub fn of(device: &dyn Device) -> Self {
        let (rank, size) = (device.communicator().rank(), device.communicator().size());
        Self { rank, size, by_devices: device.collectives().is_some() }
    }

    pub(super) fn planner(self) -> Planner {
        let planner = Planner::of_process(self.rank, self.size);
        if self.by_devices { planner.with_collectives() } else { planner }
    }
}

/// The shape of all that a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunShape {
    /// The data of a step.
    pub step: StepShape,
    /// Tokens of the longest sequence that is evaluated; absent if none is.
    pub evaluated: Option<usize>,
    /// Tokens of the longest text that the model writes, its prompt included; absent if there is none.
    pub sampled: Option<usize>,
    /// Whether rows are sampled for diagnostics.
    pub diagnosed: bool,
    /// Whether checkpoints are written from a copy of the states, which is counted.
    pub copied: bool,
    /// Type of the weights in the saved model.
    pub export_dtype: WeightType,
    /// Whether it is written in other formats as well.
    pub exported: bool,
    /// Which process it is of those that share the run.
    pub process: Process,
}

impl StepShape {
    /// The micro-batches of a step of full length.
    pub(super) fn full_batches(self) -> Vec<Batch> {
        vec![full_batch(self); self.accumulate]
    }
}

impl RunShape {
    /// The trainer of such a run.
    pub(super) fn trainer(self, planner: &Planner, setup: &Setup, model: Model) -> Result<Trainer> {
        let mut trainer = setup.trainer(planner, model)?;
        if self.diagnosed {
            trainer.diagnose(planner)?;
        }
        Ok(trainer)
    }

    /// What is done between steps: a text is written, and data that is held out is evaluated.
    pub(super) fn look(self, planner: &Planner, trainer: &Trainer) -> Result<()> {
        let Trainer { model, pass, .. } = trainer;
        if let Some(tokens) = self.sampled {
            let tokens = tokens.min(model.config.max_position_embeddings);
            let decoder = Decoder::new(planner, model, *pass);
            let mut sequence = decoder.sequence(tokens)?;
            decoder.read(&mut [(&mut sequence, &vec![0; tokens])])?;
        }
        if let Some(seq_len) = self.evaluated {
            let batch = full_batch(StepShape { seq_len, ..self.step });
            pass::evaluate(planner, model, pass, &batch)?;
        }
        Ok(())
    }
}

impl From<StepShape> for RunShape {
    /// Of a run that trains and saves.
    fn from(step: StepShape) -> Self {
        Self {
            step,
            evaluated: None,
            sampled: None,
            diagnosed: false,
            copied: false,
            export_dtype: WeightType::default(),
            exported: false,
            process: Process::ALONE,
        }
    }
}

/// Bytes of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of all training states per parameter: weights, residual, protected weights and their indices, scales,
    /// momentum, and the gradient if it is kept.
    pub bytes_per_parameter: f64,
    /// Bytes per owner at the moment of the peak.
    pub owners: Vec<OwnerBytes>,
    /// The most bytes in use at a time.
    pub peak_bytes: u64,
    /// The most bytes taken from the system: in use, kept for reuse, or reserved.
    pub reserved_bytes: u64,
    /// Bytes to [reserve](Device::reserve) before the first step, for all buffers that come and go from then on.
    pub arena_bytes: u64,
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
    /// From the ledger of a device on which at least one step was done, by one of the processes that share the run.
    pub fn of_device(device: &dyn Device, config: &LlamaConfig, gradients: GradientMode) -> Self {
        let report = device.ledger().report();
        let states: u64 = (report.owners.iter())
            .filter(|(owner, ..)| owner.is_state())
            .map(|&(_, current, _)| current)
            .sum();
        let kept = match gradients {
            GradientMode::Released => 0,
            GradientMode::Stored => stored_gradient_bytes(config, device.communicator()),
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
            arena_bytes: report.arena_bytes,
        }
    }
}

impl MemoryPlan {
    /// Bytes of all training states.
    pub fn state_bytes(&self) -> u64 {
        (self.bytes_per_parameter * self.parameters as f64) as u64
    }

    /// This, and then something else once all of it is given back: of each owner the most that it has in either.
    pub fn then(&mut self, other: &MemoryReport) {
        for (owner, &(_, _, peak_bytes)) in self.owners.iter_mut().zip(&other.owners) {
            owner.peak_bytes = owner.peak_bytes.max(peak_bytes);
        }
        if other.peak_bytes > self.peak_bytes {
            self.peak_bytes = other.peak_bytes;
            for (owner, &(_, bytes)) in self.owners.iter_mut().zip(&other.at_peak) {
                owner.bytes = bytes;
            }
        }
        self.reserved_bytes = self.reserved_bytes.max(other.peak_reserved_bytes);
    }
}

/// Bytes of a process's gradient stack when it is full: INT8 and a scale for each row that it updates, f32 for vectors.
fn stored_gradient_bytes(config: &LlamaConfig, processes: &dyn Communicator) -> u64 {
    let bytes = |t: qft_llama::TensorSpec| match t.kind {
        qft_llama::TensorKind::Matrix => RowShard::of(processes, t.rows).len() * (t.cols + 4),
        qft_llama::TensorKind::Vector => 4 * t.elements(),
    };
    config.tensors().map(|t| bytes(t) as u64).sum()
}

/// The memory of a run that trains `config` with `setup`: loading, a step, an evaluation, a sample, and saving.
pub fn plan(config: &LlamaConfig, setup: &Setup, shape: impl Into<RunShape>) -> Result<MemoryPlan> {
    let shape = shape.into();
    let arena_bytes = arena::needed(config, setup, shape)?;
    let planner = shape.process.planner();
    let model = Model::plan(&planner, config, setup.format)?;
    let mut trainer = shape.trainer(&planner, setup, model)?;
    planner.reserve(arena_bytes)?;
    let copy = shape.copied.then(|| Snapshot::plan(planner.ledger(), &mut trainer));
    shape.look(&planner, &trainer)?;
    trainer.step(&planner, &shape.step.full_batches(), 0.0)?;
    drop(copy);
    checkpoint::plan(&planner, &mut trainer);
    let mut whole = WholeRows::of(&planner, &trainer.model);
    let rows: &mut FillRows<'_> = &mut |spec, range, out| whole.read(spec, range, out);
    planner.reserve(0)?;
    export::plan(planner.ledger(), config, shape.export_dtype, rows)?;
    if shape.exported {
        planner.trim();
        export::plan_all(planner.ledger(), config, rows)?;
    }
    Ok(MemoryPlan::of_device(&planner, config, setup.gradients))
}

/// The memory of loading a model of `config` in `format`, and of evaluating micro-batches of `shape` with it.
pub fn plan_evaluation(
    config: &LlamaConfig,
    format: WeightFormat,
    pass: &PassOptions,
    shape: StepShape,
) -> Result<MemoryReport> {
    let planner = Planner::default();
    let model = Model::plan(&planner, config, format)?;
    planner.trim();
    pass::evaluate(&planner, &model, pass, &full_batch(shape))?;
    Ok(planner.ledger().report())
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
