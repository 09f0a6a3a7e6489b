//! The norm of queries or keys: of each head, or of all heads of a token together, as the length of its gain says.

use super::SAVED;
use super::linear::Flush;
use crate::geometry::Layer;
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::layers::rmsnorm;
use qft_autograd::ops::{ActivationsOut, RmsNormForward};
use qft_autograd::{Error, Vector};
use qft_tensor::{Buffer, Owner};

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub(super) struct SavedHeadNorm {
    /// f32 `[T, heads * D]`, before the norm.
    x: Buffer<f32>,
    rstd: Buffer<f32>,
}

/// `x` f32 `[T, heads * D]`, normed if there is a gain.
pub(super) fn forward(
    layer: Layer<'_>,
    gain: Option<&Vector>,
    x: Buffer<f32>,
) -> Result<(Buffer<f32>, Option<SavedHeadNorm>), Error> {
    let Some(gain) = gain else { return Ok((x, None)) };
    let (ops, gain, eps) = (layer.ctx.ops, &gain.data, layer.geometry.eps);
    let mut rstd = Buffer::alloc(ops, SAVED, "rstd of heads", x.len() / gain.len())?;
    let mut normed = Buffer::alloc(ops, SAVED, "normed heads", x.len())?;
    let out = ActivationsOut::Float(&mut normed);
    ops.rmsnorm_forward(RmsNormForward { x: &x, gain, eps, rstd: &mut rstd, out })?;
    Ok((normed, Some(SavedHeadNorm { x, rstd })))
}

/// The gradient of the forward pass's `x` from that of its result.
pub(super) fn backward(
    layer: Layer<'_>,
    (gain, pending): (&mut Option<Vector>, &mut Option<PendingVector>),
    saved: Option<SavedHeadNorm>,
    dy: Buffer<f32>,
    flush: &mut Flush<'_, '_, '_>,
) -> Result<Buffer<f32>, Error> {
    let (Some(gain), Some(pending), Some(SavedHeadNorm { x, rstd })) = (gain, pending, saved)
    else {
        return Ok(dy);
    };
    let mut dx = Buffer::zeros(layer.ctx.ops, Owner::Workspace, "heads gradient", x.len())?;
    rmsnorm::backward(layer.ctx, gain, (&x, &rstd), &dy, &mut dx, pending)?;
    flush.vector(layer.ctx, gain, pending)?;
    Ok(dx)
}
