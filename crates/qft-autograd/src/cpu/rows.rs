//! Rows for a linear layer: as floats, or quantized while they are still in the cache.

use super::lanes::LANES;
use crate::Error;
use crate::ops::RowsOut;
use qft_tensor::Cpu;
use qft_tensor::cpu::wide::{self, Maxima, RowValues};
use qft_tensor::quantize::{nearest_i8, scale_of};

/// Rows per task.
pub(super) const PER_TASK: usize = wide::ROWS;

/// [`PER_TASK`] rows of a [`RowsOut`].
pub(super) enum OutRows<'a> {
    /// f32 `[rows, cols]`.
    Float(&'a mut [f32]),
    /// Quantized.
    Int8 {
        /// i8 `[rows, cols]`.
        q: &'a mut [i8],
        /// f32 `[rows]`.
        scale: &'a mut [f32],
        /// Largest magnitude of each column so far `[cols]`; empty if nobody asks.
        maxima: &'a mut [f32],
    },
}

/// The rows of `out`, cut into tasks, with the column maxima of each.
pub(super) fn split<'a>(
    out: &'a mut RowsOut<'_>,
    maxima: &'a mut Maxima,
    cols: usize,
) -> Result<Vec<OutRows<'a>>, Error> {
    Ok(match out {
        RowsOut::Float(out) => {
            out.host_mut()?.chunks_mut(PER_TASK * cols).map(OutRows::Float).collect()
        }
        RowsOut::Int8(out) => {
            let q = out.q.host_mut()?.chunks_mut(PER_TASK * cols);
            let scale = out.scale.host_mut()?.chunks_mut(PER_TASK);
            let tasks = q.zip(scale).zip(maxima.parts());
            tasks.map(|((q, scale), maxima)| OutRows::Int8 { q, scale, maxima }).collect()
        }
    })
}

/// Column maxima for [`split`], at zero.
pub(super) fn maxima(out: &RowsOut<'_>) -> Maxima {
    match out {
        RowsOut::Float(_) => Maxima::default(),
        RowsOut::Int8(out) => Maxima::new(out),
    }
}

/// Quantizes `rows` again if the column maxima of a quantized result call for wide channels. `out` has at least one
/// element.
pub(super) fn widen(
    cpu: &Cpu,
    out: RowsOut<'_>,
    maxima: Maxima,
    rows: &impl RowValues,
) -> Result<(), Error> {
    match out {
        RowsOut::Float(_) => Ok(()),
        RowsOut::Int8(out) => Ok(maxima.widen(cpu, out, rows)?),
    }
}

/// What a result without elements still says: that it has no wide channels.
pub(super) fn write_nothing(out: RowsOut<'_>) -> Result<(), Error> {
    match out {
        RowsOut::Float(_) => Ok(()),
        RowsOut::Int8(out) => Ok(wide::none(out)?),
    }
}

/// Quantizes the row `f(a[i], b[i])` to nearest, raises the columns' maxima, and returns the row's scale; computes
/// the row up to three times.
#[inline(always)]
pub(super) fn quantize(
    q: &mut [i8],
    maxima: &mut [f32],
    (a, b): (&[f32], &[f32]),
    f: impl Fn(f32, f32) -> f32,
) -> f32 {
    for ((max, &a), &b) in maxima.iter_mut().zip(a).zip(b) {
        let magnitude = f(a, b).abs();
        *max = if magnitude > *max { magnitude } else { *max };
    }
    let mut lanes = [0.0f32; LANES];
    let ((a_head, a_tail), (b_head, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_head.iter().zip(b_head) {
        let mut row = [0.0f32; LANES];
        for i in 0..LANES {
            row[i] = f(a[i], b[i]).abs();
        }
        for i in 0..LANES {
            // `f32::max` passes over NaN, too, but is not compiled to vectors.
            lanes[i] = if row[i] > lanes[i] { row[i] } else { lanes[i] };
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane = lane.max(f(a, b).abs());
    }
    let (scale, inverse) = scale_of(lanes.iter().fold(0.0, |a, &b| a.max(b)));
    for ((q, &a), &b) in q.iter_mut().zip(a).zip(b) {
        *q = nearest_i8(f(a, b) * inverse);
    }
    scale
}
