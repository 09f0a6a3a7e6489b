//! The optimizer of a whole model: its state per tensor.

use super::TrainOps;
use super::diagnostics::Diagnostics;
use super::groups::GroupFactors;
use qft_autograd::layers::processes::{Before, settle, share_rows};
use qft_autograd::{Error as AutogradError, Matrix, TensorId, Vector, Weight};
use qft_llama::model::Model;
use qft_llama::params::Param;
use qft_optim::{
    Error, FloatState, FloatUpdate, MatrixState, MatrixUpdate, MomentCode, Rule, StatePart,
    UpdateStats, WeightRounding,
};
use qft_tensor::{Buffer, Communicator, DeviceKind, Purpose, RngKey};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What an optimizer does, whatever the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// The rule.
    pub rule: Rule,
    /// The code of the first moment, of matrices that are not float.
    pub momentum: MomentCode,
    /// Rounding of updated weights.
    pub rounding: WeightRounding,
    /// Learning rates of groups of parameters.
    pub groups: GroupFactors,
    /// Largest global norm of the gradient; infinite for no clipping.
    pub max_grad_norm: f64,
}

/// The optimizer's memory of one tensor.
#[derive(Debug)]
pub enum ParamState {
    /// Of a hybrid matrix.
    Matrix(Box<MatrixState>),
    /// Of a float parameter.
    Float(FloatState),
}

impl ParamState {
    /// Every buffer, with its name in checkpoints.
    pub fn parts_mut(&mut self) -> Vec<StatePart<'_>> {
        match self {
            Self::Matrix(state) => state.parts_mut(),
            Self::Float(state) => state.parts_mut(),
        }
    }
}

/// The state of every tensor, by id.
#[derive(Debug)]
pub struct Optimizer {
    /// What it does.
    pub config: OptimizerConfig,
    /// Per tensor.
    pub states: Vec<ParamState>,
    /// Global norm of the last step's gradient, before clipping.
    pub last_norm: Option<f64>,
    /// Sampled rows beside a float shadow, if that was asked for.
    pub diagnostics: Option<Diagnostics>,
    pub(super) stats: UpdateStats,
    /// By what the learning rate is multiplied, per tensor.
    factors: Vec<f32>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UpdateReport {
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Rows whose scale grew because a weight left its range.
    pub rescaled_rows: u64,
}

/// Numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepNumbers {
    /// Seed of the run.
    pub seed: u64,
    /// Steps done before this one.
    pub step: u32,
    /// Learning rate of the matrices of blocks.
    pub lr: f32,
}

impl Optimizer {
    /// States of zero for every parameter of `model`.
    pub fn new(ops: &dyn TrainOps, model: &Model, config: OptimizerConfig) -> Result<Self, Error> {
        config.rule.check()?;
        let (mut states, mut rows) = (Vec::new(), Vec::new());
        for param in model.params.as_ref().list() {
            rows.push(match param {
                Param::Matrix(Matrix { weight: Weight::Hybrid(weight), .. }) => weight.rows(),
                _ => 0,
            });
            states.push(match param {
                Param::Matrix(m) => match &m.weight {
                    Weight::Hybrid(w) => ParamState::Matrix(Box::new(MatrixState::zeros(
                        ops,
                        (w.rows(), w.cols()),
                        config.rule,
                        config.momentum,
                    )?)),
                    Weight::Float(w) => {
                        ParamState::Float(FloatState::zeros(ops, w.len(), config.rule)?)
                    }
                },
                Param::Vector(v) => {
                    ParamState::Float(FloatState::zeros(ops, v.data.len(), config.rule)?)
                }
            });
        }
        let stats = UpdateStats::with_rows(ops, &rows)?;
        let factors = config.groups.by_tensor(&model.params);
        Ok(Self { config, states, last_norm: None, diagnostics: None, stats, factors })
    }

    /// Starts a step: clears the sums.
    pub fn begin(&mut self, ops: &dyn TrainOps) -> Result<(), Error> {
        self.stats.clear(ops)
    }

    /// The factor by which a gradient of norm `norm` is clipped.
    pub(super) fn clip(&self, norm: Option<f64>) -> f32 {
        match norm {
            Some(norm) if norm > self.config.max_grad_norm => {
                (self.config.max_grad_norm / norm) as f32
            }
            _ => 1.0,
        }
    }

    /// Ends a step whose gradients were multiplied by `grad_scale`: reads the sums.
    pub(super) fn end(
        &mut self,
        ops: &dyn TrainOps,
        grad_scale: f32,
    ) -> Result<UpdateReport, Error> {
        let (sums, squares) = self.sums(ops)?;
        let rows = self.stats.rows.as_ref();
        let square_of = |(tensor, sums): (usize, &[f32])| -> f64 {
            match rows.and_then(|rows| rows.of(tensor)) {
                Some(places) => squares[places].iter().copied().map(f64::from).sum(),
                None => sums[0].into(),
            }
        };
        let square: f64 = sums.chunks_exact(2).enumerate().map(square_of).sum();
        let grad_norm = square.sqrt() / f64::from(grad_scale);
        let rescaled_rows = sums.chunks_exact(2).map(|s| s[1] as u64).sum();
        self.last_norm = Some(grad_norm);
        Ok(UpdateReport { grad_norm, rescaled_rows })
    }

    /// What the updates of all processes have added up: the lines of tensors, and the squares of rows.
    fn sums(&mut self, ops: &dyn TrainOps) -> Result<(Vec<f32>, Vec<f32>), Error> {
        let mut sums = self.stats.sums.to_vec(ops)?;
        let mut squares = match &self.stats.rows {
            Some(rows) => rows.squares.to_vec(ops)?,
            None => Vec::new(),
        };
        let processes = ops.communicator();
        if processes.size() > 1 && ops.kind() != DeviceKind::Planner {
            // Those of rows of others are zero here.
            processes.max(bytemuck::cast_slice_mut(&mut squares))?;
            add_counts(processes, &mut sums)?;
        }
        Ok((sums, squares))
    }

    /// Updates those of `rows` that this process owns, whose gradient is in its place in `grad`, and sends them to all
    /// processes. What their owners have made of the rest comes later, and has to be [settled](settle).
    pub(super) fn update_matrix(
        &mut self,
        ops: &dyn TrainOps,
        numbers: StepNumbers,
        grad_scale: f32,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &mut Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let shard = matrix.shard(ops.communicator());
        if shard.is_whole() {
            return self.update_rows(ops, numbers, grad_scale, matrix, (rows.clone(), rows), grad);
        }
        let before = match &matrix.weight {
            Weight::Hybrid(weight) => Some(Before::of(ops, weight, &rows)?),
            Weight::Float(_) => None,
        };
        for piece in shard.pieces(rows.clone()) {
            let all = rows.clone();
            self.update_rows(ops, numbers, grad_scale, matrix, (piece, all), grad)?;
        }
        let Some(before) = before else { return Ok(()) };
        // Of a large matrix, what is on its way is not to pile up.
        settle(ops, matrix, 1)?;
        share_rows(ops, matrix, &rows, before)
    }

    /// Updates `rows`, whose gradient is in its place in that of `all`.
    fn update_rows(
        &mut self,
        ops: &dyn TrainOps,
        numbers: StepNumbers,
        grad_scale: f32,
        matrix: &mut Matrix,
        (rows, all): (Range<usize>, Range<usize>),
        grad: &mut Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let own = rows.start - all.start..rows.end - all.start;
        let (id, cols) = (matrix.id, matrix.cols());
        let StepNumbers { seed, step, .. } = numbers;
        let lr = self.lr(id, numbers);
        let state = &mut self.states[id.0 as usize];
        let before = match (&self.diagnostics, &matrix.weight, &*state) {
            (Some(diagnostics), Weight::Hybrid(weight), ParamState::Matrix(state)) => {
                let (states, grad) = ((weight, state.as_ref()), (all.start, &*grad));
                diagnostics.before(ops, id, states, &rows, grad)?
            }
            _ => Vec::new(),
        };
        let update = match (&mut matrix.weight, state) {
            (Weight::Hybrid(weight), ParamState::Matrix(state)) => {
                ops.matrix_update(MatrixUpdate {
                    weight,
                    state,
                    rule: self.config.rule,
                    grad: grad.mat_mut(all.len(), cols)?.row_range(own)?,
                    rows,
                    grad_scale,
                    lr,
                    rounding: self.config.rounding,
                    key: RngKey::new(seed, step, id.0, Purpose::Update),
                    stats: &mut self.stats,
                })
            }
            (Weight::Float(weight), ParamState::Float(state)) => ops.float_update(FloatUpdate {
                weight,
                state,
                start: rows.start * cols,
                grad: grad.span(0..rows.len() * cols)?,
                grad_scale,
                lr,
                rule: self.config.rule,
                step,
                tensor: id.0,
                stats: &mut self.stats,
            }),
            _ => {
                return Err(AutogradError::WrongSaved {
                    layer: "optimizer",
                    what: "state and weight are of different formats",
                });
            }
        };
        update.map_err(sink_error)?;
        if let (Some(diagnostics), Weight::Hybrid(weight)) = (&mut self.diagnostics, &matrix.weight)
        {
            let numbers = StepNumbers { seed, step, lr };
            diagnostics.after(ops, (id, weight), before, (grad_scale, numbers))?;
        }
        Ok(())
    }

    /// The learning rate of a tensor in a step.
    fn lr(&self, id: TensorId, numbers: StepNumbers) -> f32 {
        numbers.lr * self.factors[id.0 as usize]
    }

    pub(super) fn update_vector(
        &mut self,
        ops: &dyn TrainOps,
        numbers: StepNumbers,
        grad_scale: f32,
        vector: &mut Vector,
        grad: &Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let lr = self.lr(vector.id, numbers);
        let ParamState::Float(state) = &mut self.states[vector.id.0 as usize] else {
            return Err(AutogradError::WrongSaved {
                layer: "optimizer",
                what: "a vector has the state of a matrix",
            });
        };
        ops.float_update(FloatUpdate {
            weight: &mut vector.data,
            state,
            start: 0,
            grad: grad.all(),
            grad_scale,
            lr,
            rule: self.config.rule.without_decay(),
            step: numbers.step,
            tensor: vector.id.0,
            stats: &mut self.stats,
        })
        .map_err(sink_error)
    }
}

/// Adds up the second number of each pair, a count of rows, over all processes.
fn add_counts(processes: &dyn Communicator, sums: &mut [f32]) -> Result<(), Error> {
    let (rank, size, len) = (processes.rank(), processes.size(), size_of_val(sums));
    let parts: Vec<_> = (0..size).map(|rank| rank * len..(rank + 1) * len).collect();
    let mut bytes = vec![0u8; size * len];
    bytes[parts[rank].clone()].copy_from_slice(bytemuck::cast_slice(sums));
    processes.gather(&mut bytes, &parts)?;
    for (rank, part) in parts.into_iter().enumerate() {
        let theirs = bytes[part].as_chunks::<4>().0.iter().map(|word| f32::from_ne_bytes(*word));
        for (index, (sum, theirs)) in sums.iter_mut().zip(theirs).enumerate() {
            let add = if rank == 0 { 0.0 } else { *sum };
            if index % 2 == 1 {
                *sum = add + theirs;
            }
        }
    }
    Ok(())
}

pub(super) fn sink_error(error: Error) -> AutogradError {
    AutogradError::Sink(Box::new(error))
}
