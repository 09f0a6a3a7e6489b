//! Rows of matrices that other processes of a job keep: the first process writes the model, and asks for them.

use super::TrainOps;
use crate::error::Result;
use qft_autograd::layers::processes;
use qft_autograd::{Matrix, Vector, Weight};
use qft_llama::model::Model;
use qft_llama::params::Param;
use qft_llama::{Error, TensorSpec};
use qft_quant::{HybridMatrix, Kept};
use qft_tensor::communicator::of_first;
use qft_tensor::{Buffer, RowShard};
use std::collections::HashMap;
use std::ops::Range;

/// Bytes of rows that are asked for at a time.
const CHUNK: usize = 4 << 20;

/// All rows of a model in full precision, for the process that writes it.
#[derive(Debug)]
pub struct WholeRows<'a> {
    ops: &'a dyn TrainOps,
    named: HashMap<&'a str, Param<&'a Matrix, &'a Vector>>,
    /// A copy of the matrix that was read last, with the rows of all.
    whole: Option<Matrix>,
}

/// Residual rows of a matrix that this process has some of.
fn scattered(matrix: &Matrix) -> Option<(&HybridMatrix, RowShard)> {
    match &matrix.weight {
        Weight::Hybrid(weight) if weight.residual.is_some() => {
            Some((weight, weight.residual_shard())).filter(|(_, shard)| !shard.is_whole())
        }
        _ => None,
    }
}

impl<'a> WholeRows<'a> {
    /// Of a model in training.
    pub fn of(ops: &'a dyn TrainOps, model: &'a Model) -> Self {
        let params = model.params.as_ref().list();
        let named = params.into_iter().map(|param| (param.name(), param)).collect();
        Self { ops, named, whole: None }
    }

    /// Rows of a tensor, as f32.
    ///
    /// Errors: those of the device; the job is lost.
    pub fn read(
        &mut self,
        spec: &TensorSpec,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let param = self.named[spec.name.as_str()];
        match param {
            Param::Matrix(matrix) if scattered(matrix).is_some() => {
                if self.whole.as_ref().is_none_or(|whole| whole.id != matrix.id) {
                    self.whole = None;
                    self.whole = Some(self.collect(matrix)?);
                }
                match &self.whole {
                    Some(whole) => Param::Matrix(whole).read_rows(self.ops, rows, out),
                    None => Ok(()),
                }
            }
            other => other.read_rows(self.ops, rows, out),
        }
    }

    /// A copy of a matrix with all rows of its residual.
    fn collect(&self, matrix: &Matrix) -> Result<Matrix, Error> {
        of_first(self.ops.communicator(), matrix.id.0 + 1)?;
        let Some((weight, _)) = scattered(matrix) else { unreachable!("it was asked for") };
        let whole = whole_copy(self.ops, weight, &mut |plane, row_bytes| {
            each_part(self.ops, weight, &mut |rows, bytes| {
                Ok(plane.upload(self.ops, rows.start * row_bytes, bytemuck::cast_slice(bytes))?)
            })
        })?;
        Ok(Matrix::hybrid(matrix.id, matrix.name.clone(), whole))
    }

    /// Lets the others go.
    ///
    /// Errors: the job is lost.
    pub fn finish(self) -> Result<()> {
        of_first(self.ops.communicator(), 0)?;
        Ok(())
    }
}

/// Brings rows to the process that writes the model, until that lets go.
///
/// Errors: the job is lost.
pub fn serve(ops: &dyn TrainOps, model: &Model) -> Result<()> {
    let params = model.params.as_ref().list();
    loop {
        let asked = of_first(ops.communicator(), 0)?;
        let Some(id) = asked.checked_sub(1) else { return Ok(()) };
        if let Some(Param::Matrix(matrix)) = params.get(id as usize)
            && let Some((weight, _)) = scattered(matrix)
        {
            each_part(ops, weight, &mut |_, _| Ok(()))?;
        }
    }
}

/// Hands on the residual rows of all processes, which come together here.
fn each_part(
    ops: &dyn TrainOps,
    weight: &HybridMatrix,
    take: &mut TakeRows<'_>,
) -> Result<(), Error> {
    let Some(residual) = &weight.residual else { return Ok(()) };
    let (n, width) = (weight.rows(), weight.format().residual.row_bytes(weight.cols()));
    let step = (CHUNK / width.max(1)).max(1);
    let mut bytes = vec![0; step.min(n) * width];
    for start in (0..n).step_by(step) {
        let rows = start..(start + step).min(n);
        let part = &mut bytes[..rows.len() * width];
        processes::gather_rows(ops, residual.raw(), weight.residual_shard(), &rows, part)?;
        take(rows, part)?;
    }
    Ok(())
}

/// Fills a plane, whose rows have so many bytes.
type FillPlane<'a> = dyn FnMut(&mut Buffer<i8>, usize) -> Result<(), Error> + 'a;

/// Takes some rows of a plane.
type TakeRows<'a> = dyn FnMut(Range<usize>, &[u8]) -> Result<(), Error> + 'a;

/// A copy of a matrix, whose residual `fill` fills.
fn whole_copy(
    ops: &dyn TrainOps,
    weight: &HybridMatrix,
    fill: &mut FillPlane<'_>,
) -> Result<HybridMatrix, Error> {
    let (n, cols, format) = (weight.rows(), weight.cols(), weight.format());
    let mut whole = HybridMatrix::alloc(ops, (n, cols), format, Kept::All)?;
    whole.q.copy_from(ops, 0, &weight.q, 0..weight.q.len())?;
    whole.scale.copy_from(ops, 0, &weight.scale, 0..n)?;
    if let (Some(to), Some(from)) = (&mut whole.protected, &weight.protected) {
        to.values.copy_from(ops, 0, &from.values, 0..from.values.len())?;
        to.cols.copy_from(ops, 0, &from.cols, 0..from.cols.len())?;
        to.counts.copy_from(ops, 0, &from.counts, 0..from.counts.len())?;
        to.row_start.copy_from(ops, 0, &from.row_start, 0..n + 1)?;
    }
    if let Some(plane) = &mut whole.residual {
        fill(plane, format.residual.row_bytes(cols))?;
    }
    Ok(whole)
}
