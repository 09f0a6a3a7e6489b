//! Rows for a linear layer: as floats, or quantized while they are still in the cache.

use crate::Error;
use crate::ops::ActivationsOut;
use qft_tensor::cpu::int8_rows::{self, Int8Rows};

/// Rows per task.
pub(super) const PER_TASK: usize = int8_rows::ROWS;

/// [`PER_TASK`] rows of a [`ActivationsOut`].
pub(super) enum OutRows<'a> {
    /// f32 `[rows, cols]`.
    Float(&'a mut [f32]),
    /// Quantized.
    Int8(Int8Rows<'a>),
}

/// The rows of `out`, which has at least one element, cut into tasks.
pub(super) fn split<'a>(out: ActivationsOut<'a>, cols: usize) -> Result<Vec<OutRows<'a>>, Error> {
    Ok(match out {
        ActivationsOut::Float(out) => {
            out.host_mut()?.chunks_mut(PER_TASK * cols).map(OutRows::Float).collect()
        }
        ActivationsOut::Int8(out) => Int8Rows::split(out)?.into_iter().map(OutRows::Int8).collect(),
    })
}
