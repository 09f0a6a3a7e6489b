//! The optimizer of a whole model: its state per tensor, and the sinks through which gradients reach it.

use crate::TrainOps;
use qft_autograd::{Error as AutogradError, GradientSink, Matrix, Stack, TensorId, Vector, Weight};
use qft_llama::model::{Model, Param, ParamMut};
use qft_optim::{
    Error, FloatRule, FloatState, FloatUpdate, LionConfig, LionUpdate, Momentum, MomentumCode,
    SquareSum, UpdateStats, WeightRounding,
};
use qft_tensor::{
    Buffer, Dequantize, Owner, Purpose, QMatrix, QuantizeRows, RngKey, Rounding, ScaleAxis,
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What an optimizer does, whatever the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// Lion on INT8 matrices.
    pub lion: LionConfig,
    /// The rule for float parameters: all of them in the float reference, norm gains otherwise.
    pub float: FloatRule,
    /// Meaning of momentum codes.
    pub momentum: MomentumCode,
    /// Rounding of updated weights.
    pub rounding: WeightRounding,
    /// Largest global norm of the gradient; infinite for no clipping.
    pub max_grad_norm: f64,
}

/// The optimizer's memory of one tensor.
#[derive(Debug)]
pub enum ParamState {
    /// Of a hybrid matrix.
    Int8(Momentum),
    /// Of a float parameter.
    Float(FloatState),
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
    stats: UpdateStats,
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
    /// Learning rate.
    pub lr: f32,
}

impl Optimizer {
    /// States of zero for every parameter of `model`.
    pub fn new(ops: &dyn TrainOps, model: &Model, config: OptimizerConfig) -> Result<Self, Error> {
        config.lion.check()?;
        let mut states = Vec::new();
        for param in model.params() {
            states.push(match param {
                Param::Matrix(m) => match &m.weight {
                    Weight::Hybrid(w) => ParamState::Int8(Momentum::zeros(
                        ops,
                        (w.rows(), w.cols()),
                        config.momentum,
                    )?),
                    Weight::Float(w) => {
                        ParamState::Float(FloatState::zeros(ops, w.len(), config.float)?)
                    }
                },
                Param::Vector(v) => {
                    ParamState::Float(FloatState::zeros(ops, v.data.len(), config.float)?)
                }
            });
        }
        let stats = UpdateStats::zeros(ops, states.len())?;
        Ok(Self { config, states, last_norm: None, stats })
    }

    /// Starts a step: clears the sums.
    pub fn begin(&mut self, ops: &dyn TrainOps) -> Result<(), Error> {
        Ok(self.stats.sums.fill_zero(ops)?)
    }

    /// The factor by which a gradient of norm `norm` is clipped.
    fn clip(&self, norm: Option<f64>) -> f32 {
        match norm {
            Some(norm) if norm > self.config.max_grad_norm => {
                (self.config.max_grad_norm / norm) as f32
            }
            _ => 1.0,
        }
    }

    /// Ends a step whose gradients were multiplied by `grad_scale`: reads the sums.
    fn end(&mut self, ops: &dyn TrainOps, grad_scale: f32) -> Result<UpdateReport, Error> {
        let sums = self.stats.sums.to_vec(ops)?;
        let square: f64 = sums.chunks_exact(2).map(|s| f64::from(s[0])).sum();
        let grad_norm = square.sqrt() / f64::from(grad_scale);
        let rescaled_rows = sums.chunks_exact(2).map(|s| s[1] as u64).sum();
        self.last_norm = Some(grad_norm);
        Ok(UpdateReport { grad_norm, rescaled_rows })
    }

    fn update_matrix(
        &mut self,
        ops: &dyn TrainOps,
        numbers: StepNumbers,
        grad_scale: f32,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let (id, cols) = (matrix.id, matrix.cols());
        let StepNumbers { seed, step, lr } = numbers;
        let update = match (&mut matrix.weight, &mut self.states[id.0 as usize]) {
            (Weight::Hybrid(weight), ParamState::Int8(momentum)) => ops.lion_update(LionUpdate {
                weight,
                momentum,
                grad: grad.mat(rows.len(), cols)?,
                rows,
                grad_scale,
                lr,
                config: self.config.lion,
                rounding: self.config.rounding,
                key: RngKey::new(seed, step, id.0, Purpose::Update),
                stats: &mut self.stats,
            }),
            (Weight::Float(weight), ParamState::Float(state)) => ops.float_update(FloatUpdate {
                weight,
                state,
                start: rows.start * cols,
                grad: grad.span(0..rows.len() * cols)?,
                grad_scale,
                lr,
                rule: self.config.float,
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
        update.map_err(sink_error)
    }

    fn update_vector(
        &mut self,
        ops: &dyn TrainOps,
        numbers: StepNumbers,
        grad_scale: f32,
        vector: &mut Vector,
        grad: &Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let ParamState::Float(state) = &mut self.states[vector.id.0 as usize] else {
            return Err(AutogradError::WrongSaved {
                layer: "optimizer",
                what: "a vector has an INT8 state",
            });
        };
        ops.float_update(FloatUpdate {
            weight: &mut vector.data,
            state,
            start: 0,
            grad: grad.all(),
            grad_scale,
            lr: numbers.lr,
            rule: self.config.float.without_decay(),
            step: numbers.step,
            tensor: vector.id.0,
            stats: &mut self.stats,
        })
        .map_err(sink_error)
    }
}

fn sink_error(error: Error) -> AutogradError {
    AutogradError::Sink(Box::new(error))
}

/// Updates weights the moment a block of gradient arrives: no gradient outlives its block.
///
/// Clipping uses the norm of the previous step's gradient, since this step's is not known until its end.
#[derive(Debug)]
pub struct ReleasedSink<'a> {
    ops: &'a dyn TrainOps,
    optimizer: &'a mut Optimizer,
    numbers: StepNumbers,
    grad_scale: f32,
}

impl<'a> ReleasedSink<'a> {
    /// For one step.
    pub fn new(
        ops: &'a dyn TrainOps,
        optimizer: &'a mut Optimizer,
        numbers: StepNumbers,
    ) -> Result<Self, Error> {
        optimizer.begin(ops)?;
        let grad_scale = optimizer.clip(optimizer.last_norm);
        Ok(Self { ops, optimizer, numbers, grad_scale })
    }

    /// Ends the step.
    pub fn finish(self) -> Result<UpdateReport, Error> {
        self.optimizer.end(self.ops, self.grad_scale)
    }
}

impl GradientSink for ReleasedSink<'_> {
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let (ops, numbers, scale) = (self.ops, self.numbers, self.grad_scale);
        self.optimizer.update_matrix(ops, numbers, scale, matrix, rows, grad)
    }

    fn vector(&mut self, vector: &mut Vector, grad: &Buffer<f32>) -> Result<(), AutogradError> {
        let (ops, numbers, scale) = (self.ops, self.numbers, self.grad_scale);
        self.optimizer.update_vector(ops, numbers, scale, vector, grad)
    }
}

/// A gradient on the gradient stack.
#[derive(Debug)]
enum StoredGradient {
    Rows { id: TensorId, rows: Range<usize>, grad: QMatrix },
    Vector { id: TensorId, grad: Buffer<f32> },
}

/// Quantizes each block of gradient to INT8 (a scale per row) and pushes it; the update pops.
///
/// The whole model's gradient is kept, so clipping is by the exact norm of what is applied.
#[derive(Debug)]
pub struct StoredSink<'a> {
    ops: &'a dyn TrainOps,
    numbers: StepNumbers,
    stack: Stack<StoredGradient>,
}

impl<'a> StoredSink<'a> {
    /// For one step.
    pub fn new(ops: &'a dyn TrainOps, numbers: StepNumbers) -> Self {
        Self { ops, numbers, stack: Stack::new("gradient") }
    }

    /// Pops every gradient and updates its parameter; ends the step.
    pub fn apply(
        mut self,
        ops: &dyn TrainOps,
        optimizer: &mut Optimizer,
        model: &mut Model,
        numbers: StepNumbers,
    ) -> Result<UpdateReport, AutogradError> {
        optimizer.begin(ops).map_err(sink_error)?;
        for stored in self.stack.iter() {
            let (id, grad) = stored.to_float(ops)?;
            let rows = grad.mat(1, grad.len())?;
            let sum = SquareSum { grad: rows, tensor: id.0, stats: &mut optimizer.stats };
            ops.square_sum(sum).map_err(sink_error)?;
        }
        let norm = optimizer.end(ops, 1.0).map_err(sink_error)?.grad_norm;
        optimizer.begin(ops).map_err(sink_error)?;
        let scale = optimizer.clip(Some(norm));
        let mut params: Vec<Option<ParamMut<'_>>> =
            model.params_mut().into_iter().map(Some).collect();
        while !self.stack.is_empty() {
            let stored = self.stack.pop()?;
            let (id, grad) = stored.to_float(ops)?;
            match (params[id.0 as usize].as_mut(), stored) {
                (Some(ParamMut::Matrix(matrix)), StoredGradient::Rows { rows, .. }) => {
                    optimizer.update_matrix(ops, numbers, scale, matrix, rows, &grad)?;
                }
                (Some(ParamMut::Vector(vector)), StoredGradient::Vector { .. }) => {
                    optimizer.update_vector(ops, numbers, scale, vector, &grad)?;
                }
                _ => {
                    return Err(AutogradError::WrongSaved {
                        layer: "gradient stack",
                        what: "gradient and parameter are of different kinds",
                    });
                }
            }
        }
        let report = optimizer.end(ops, scale).map_err(sink_error)?;
        Ok(UpdateReport { grad_norm: norm, ..report })
    }
}

impl StoredGradient {
    fn to_float(&self, ops: &dyn TrainOps) -> Result<(TensorId, Buffer<f32>), AutogradError> {
        match self {
            Self::Rows { id, grad, .. } => {
                let (n, k) = (grad.rows(), grad.cols());
                let mut out = Buffer::alloc(ops, Owner::Workspace, "gradient block", n * k)?;
                ops.dequantize(Dequantize { x: grad, out: out.mat_mut(n, k)? })?;
                Ok((*id, out))
            }
            Self::Vector { id, grad } => {
                let mut out = Buffer::alloc(ops, Owner::Workspace, "gain gradient", grad.len())?;
                out.copy_from(ops, 0, grad, 0..grad.len())?;
                Ok((*id, out))
            }
        }
    }
}

impl GradientSink for StoredSink<'_> {
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let (ops, shape) = (self.ops, (rows.len(), matrix.cols()));
        let mut out =
            QMatrix::alloc(ops, Owner::Gradients, "stored gradient", shape, ScaleAxis::Row)?;
        let StepNumbers { seed, step, .. } = self.numbers;
        let key = RngKey::new(seed, step, matrix.id.0, Purpose::StoredGradient);
        let rounding = Rounding::Stochastic { key, first_row: rows.start };
        let x = grad.mat(shape.0, shape.1)?;
        ops.quantize_rows(QuantizeRows { x, fold: None, rounding, out: &mut out })?;
        self.stack.push(StoredGradient::Rows { id: matrix.id, rows, grad: out });
        Ok(())
    }

    fn vector(&mut self, vector: &mut Vector, grad: &Buffer<f32>) -> Result<(), AutogradError> {
        let ops = self.ops;
        let mut kept = Buffer::alloc(ops, Owner::Gradients, "stored gradient", grad.len())?;
        kept.copy_from(ops, 0, grad, 0..grad.len())?;
        self.stack.push(StoredGradient::Vector { id: vector.id, grad: kept });
        Ok(())
    }
}
