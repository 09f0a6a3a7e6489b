//! Rows for a linear layer: as floats, or quantized while they are still in the cache.

use super::lanes::LANES;
use crate::Error;
use crate::ops::RowsOut;
use qft_tensor::quantize::{nearest_i8, scale_of};

/// Rows per task.
pub(super) const PER_TASK: usize = 8;

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
    },
}

/// The rows of `out`, cut into tasks.
pub(super) fn split<'a>(out: RowsOut<'a>, cols: usize) -> Result<Vec<OutRows<'a>>, Error> {
    Ok(match out {
        RowsOut::Float(out) => {
            out.host_mut()?.chunks_mut(PER_TASK * cols).map(OutRows::Float).collect()
        }
        RowsOut::Int8(out) => {
            let q = out.q.host_mut()?.chunks_mut(PER_TASK * cols);
            let scale = out.scale.host_mut()?.chunks_mut(PER_TASK);
            q.zip(scale).map(|(q, scale)| OutRows::Int8 { q, scale }).collect()
        }
    })
}

/// Quantizes the row `f(a[i], b[i])` to nearest and returns its scale; computes the row twice.
#[inline(always)]
pub(super) fn quantize(q: &mut [i8], a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
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
