//! The sinks through which gradients reach the optimizer.

use super::TrainOps;
use super::optimizer::{Optimizer, StepNumbers, UpdateReport, sink_error};
use qft_autograd::layers::processes::settle;
use qft_autograd::{Error as AutogradError, GradientSink, Matrix, Stack, TensorId, Vector};
use qft_llama::model::Model;
use qft_llama::params::Param;
use qft_optim::{Error, SquareSum, UpdateStats};
use qft_tensor::{
    Buffer, Dequantize, Owner, Purpose, QMatrix, QuantizeRows, RngKey, Rounding, ScaleAxis,
};
use std::ops::Range;

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
        grad: &mut Buffer<f32>,
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
    /// Of a block of rows, those that this process updates, in runs.
    Rows { id: TensorId, rows: Range<usize>, own: Vec<StoredRows> },
    /// All processes update vectors.
    Vector { id: TensorId, grad: Buffer<f32> },
}

/// Rows of a gradient that follow each other.
#[derive(Debug)]
struct StoredRows {
    rows: Range<usize>,
    grad: QMatrix,
}

/// Quantizes each block of gradient to INT8 (a scale per row) and pushes it; the update pops.
///
/// The whole model's gradient is kept, so clipping is by the exact norm of what is applied. Of a job's processes each keeps
/// the rows that it updates: when a block comes, their sums over all processes are there.
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
            stored.add_squares(ops, &mut optimizer.stats)?;
        }
        let norm = optimizer.end(ops, 1.0).map_err(sink_error)?.grad_norm;
        optimizer.begin(ops).map_err(sink_error)?;
        let scale = optimizer.clip(Some(norm));
        let mut params = model.params.as_mut().list();
        let mut last = None;
        while !self.stack.is_empty() {
            let stored = self.stack.pop()?;
            settle_other(ops, &mut params, last.replace(stored.id()), Some(stored.id()))?;
            match (&mut params[stored.id().0 as usize], stored) {
                (Param::Matrix(matrix), StoredGradient::Rows { rows, own, .. }) => {
                    let (n, k) = (rows.len(), matrix.cols());
                    let mut grad = Buffer::alloc(ops, Owner::Workspace, "gradient block", n * k)?;
                    for stored in own {
                        let at = stored.rows.start - rows.start..stored.rows.end - rows.start;
                        let out = grad.mat_mut(n, k)?.row_range(at)?;
                        ops.dequantize(Dequantize { x: &stored.grad, out })?;
                    }
                    optimizer.update_matrix(ops, numbers, scale, matrix, rows, &mut grad)?;
                }
                (Param::Vector(vector), StoredGradient::Vector { grad, .. }) => {
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
        settle_other(ops, &mut params, last, None)?;
        let report = optimizer.end(ops, scale).map_err(sink_error)?;
        Ok(UpdateReport { grad_norm: norm, ..report })
    }
}

/// Takes over what other processes have made of `last`, once another parameter's turn has come.
fn settle_other(
    ops: &dyn TrainOps,
    params: &mut [Param<&mut Matrix, &mut Vector>],
    last: Option<TensorId>,
    next: Option<TensorId>,
) -> Result<(), AutogradError> {
    match last.filter(|_| last != next).map(|last| &mut params[last.0 as usize]) {
        Some(Param::Matrix(matrix)) => settle(ops, matrix, 0),
        _ => Ok(()),
    }
}

impl StoredGradient {
    /// The parameter that it is of.
    fn id(&self) -> TensorId {
        match self {
            Self::Rows { id, .. } | Self::Vector { id, .. } => *id,
        }
    }

    /// Adds the squares of the rows that this process updates, or those of a vector.
    fn add_squares(
        &self,
        ops: &dyn TrainOps,
        stats: &mut UpdateStats,
    ) -> Result<(), AutogradError> {
        let tensor = self.id().0;
        match self {
            Self::Vector { grad, .. } => {
                let grad = grad.mat(1, grad.len())?;
                ops.square_sum(SquareSum { grad, first_row: 0, tensor, stats }).map_err(sink_error)
            }
            Self::Rows { own, .. } => own.iter().try_for_each(|StoredRows { rows, grad: x }| {
                let (n, k, first_row) = (x.rows(), x.cols(), rows.start);
                let mut out = Buffer::alloc(ops, Owner::Workspace, "gradient block", n * k)?;
                ops.dequantize(Dequantize { x, out: out.mat_mut(n, k)? })?;
                let grad = out.mat(n, k)?;
                ops.square_sum(SquareSum { grad, first_row, tensor, stats }).map_err(sink_error)
            }),
        }
    }
}

impl GradientSink for StoredSink<'_> {
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &mut Buffer<f32>,
    ) -> Result<(), AutogradError> {
        let (ops, cols) = (self.ops, matrix.cols());
        let all = grad.mat(rows.len(), cols)?;
        let StepNumbers { seed, step, .. } = self.numbers;
        let key = RngKey::new(seed, step, matrix.id.0, Purpose::StoredGradient);
        let mut own = Vec::new();
        for piece in matrix.shard(ops.communicator()).pieces(rows.clone()) {
            let (owner, shape) = (Owner::Gradients, (piece.len(), cols));
            let mut grad = QMatrix::alloc(ops, owner, "stored gradient", shape, ScaleAxis::Row)?;
            let x = all.row_range(piece.start - rows.start..piece.end - rows.start)?;
            let rounding = Rounding::Stochastic { key, first_row: piece.start };
            ops.quantize_rows(QuantizeRows { x, fold: None, rounding, out: &mut grad })?;
            own.push(StoredRows { rows: piece, grad });
        }
        self.stack.push(StoredGradient::Rows { id: matrix.id, rows, own });
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
