//! The embedding table: lookup, and its gradient by blocks of rows.

use super::linear::{self, block_rows, blocks};
use crate::ops::{EmbedBackward, EmbedForward};
use crate::{Context, Error, GradientSink, Matrix};
use qft_tensor::{Buffer, Owner};

/// The rows of `table` that `ids` name: f32 `[T, C]`.
///
/// Errors: [`Error::IndexOutOfRange`].
pub fn forward(ctx: &Context<'_>, table: &Matrix, ids: &Buffer<u32>) -> Result<Buffer<f32>, Error> {
    let (vocab, channels) = (table.rows(), table.cols());
    let mut out =
        Buffer::alloc(ctx.ops, Owner::Activations, "residual stream", ids.len() * channels)?;
    let rows = EmbedForward { ids, table: table.table(), vocab, channels, out: &mut out };
    ctx.ops.embed_forward(rows)?;
    linear::rotate(ctx, table, &mut out)?;
    Ok(out)
}

/// Gradient of the table from all micro-batches: pairs of ids `[T]` and gradient f32 `[T, C]`.
///
/// Rows that no token names have a gradient of zero; they are handed over too, since momentum moves them.
pub fn backward(
    ctx: &Context<'_>,
    table: &mut Matrix,
    micro_batches: &[(&Buffer<u32>, &Buffer<f32>)],
    sink: &mut dyn GradientSink,
) -> Result<(), Error> {
    let (vocab, channels) = (table.rows(), table.cols());
    let size = block_rows(channels).min(vocab);
    let mut grad = Buffer::alloc(ctx.ops, Owner::Gradients, "gradient block", size * channels)?;
    for rows in blocks(0..vocab, size) {
        grad.fill_zero(ctx.ops)?;
        for (ids, dy) in micro_batches {
            let grad = grad.mat_mut(rows.len(), channels)?;
            ctx.ops.embed_backward(EmbedBackward { ids, dy, rows: rows.clone(), grad })?;
        }
        sink.matrix_rows(table, rows, &mut grad)?;
    }
    Ok(())
}
