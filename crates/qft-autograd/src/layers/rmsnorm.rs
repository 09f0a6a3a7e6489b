//! RMSNorm with a trained gain.

use super::pending::PendingVector;
use crate::activations::Activations;
use crate::ops::{RmsNormBackward, RmsNormForward};
use crate::{Context, Error, InputFormat, Vector};
use qft_tensor::{Buffer, Owner};

/// Normalizes `x` f32 `[T, C]` into the format that the next linear layers need; also returns `rstd` `[T]`.
pub fn forward(
    ctx: &Context<'_>,
    format: InputFormat,
    gain: &Vector,
    eps: f32,
    x: &Buffer<f32>,
) -> Result<(Activations, Buffer<f32>), Error> {
    let channels = gain.data.len();
    let (tokens, owner) = (x.len() / channels, Owner::Activations);
    let mut rstd = Buffer::alloc(ctx.ops, owner, "rstd", tokens)?;
    let mut normed = Activations::alloc(ctx.ops, format, "normed", (tokens, channels))?;
    let out = normed.out();
    ctx.ops.rmsnorm_forward(RmsNormForward { x, gain: &gain.data, eps, rstd: &mut rstd, out })?;
    normed.rotate_floats(ctx.ops, format)?;
    Ok((normed, rstd))
}

/// Adds to `dx` the gradient through the norm, and to `dgain` that of the gain.
pub fn backward(
    ctx: &Context<'_>,
    gain: &Vector,
    (x, rstd): (&Buffer<f32>, &Buffer<f32>),
    dy: &Buffer<f32>,
    dx: &mut Buffer<f32>,
    dgain: &mut PendingVector,
) -> Result<(), Error> {
    let dgain = dgain.sum(ctx, gain)?;
    ctx.ops.rmsnorm_backward(RmsNormBackward { x, gain: &gain.data, rstd, dy, dx, dgain })
}
