//! How a branch of a block leaves the residual stream and comes back to it, and so its gradient: through a norm before it,
//! or through one behind it.

use super::SAVED;
use super::linear::Flush;
use crate::config::NormPlacement;
use crate::geometry::Layer;
use crate::params::Linear;
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::layers::{rmsnorm, scale};
use qft_autograd::ops::{ActivationsOut, RmsNormForward, ScaledAdd};
use qft_autograd::{Activations, Error, Matrix, Vector};
use qft_tensor::{Buffer, Owner};
use std::sync::Arc;

/// What the backward pass of a branch needs of its forward pass.
#[derive(Debug)]
pub(super) struct SavedBranch<S> {
    pub(super) entered: Entered,
    pub(super) inner: S,
    pub(super) output: Option<Output>,
}

/// The input of a branch.
#[derive(Debug)]
pub(super) struct Entered {
    /// As linear layers read it.
    pub(super) input: Arc<Activations>,
    /// Of the norm before the branch.
    pub(super) rstd: Option<Buffer<f32>>,
}

/// The output of a branch that has a norm behind it.
#[derive(Debug)]
pub(super) struct Output {
    /// f32 `[T, C]`, before the norm.
    x: Buffer<f32>,
    rstd: Buffer<f32>,
}

/// The residual stream `x` f32 `[T, C]` in the format that `first`, the first layer of a branch, reads: normed, unless the
/// norm stands behind the branch.
pub(super) fn enter(
    layer: Layer<'_>,
    norm: &Vector,
    first: &Linear<Matrix, Vector>,
    x: &Buffer<f32>,
) -> Result<Entered, Error> {
    let (ctx, format) = (layer.ctx, first.weight.input(layer.ctx.compute));
    let (input, rstd) = match layer.geometry.norms {
        NormPlacement::Before => {
            let (input, rstd) = rmsnorm::forward(ctx, format, norm, layer.geometry.eps, x)?;
            (input, Some(rstd))
        }
        NormPlacement::After => {
            let channels = norm.data.len();
            let shape = (x.len() / channels, channels);
            (Activations::of(ctx.ops, format, "branch input", x, shape)?, None)
        }
    };
    Ok(Entered { input: Arc::new(input), rstd })
}

/// The output of a branch whose last layer is `last`, if a norm stands behind it.
pub(super) fn output(
    layer: Layer<'_>,
    norm: &Vector,
    last: &Linear<Matrix, Vector>,
    input: &Activations,
) -> Result<Option<Output>, Error> {
    if layer.geometry.norms == NormPlacement::Before {
        return Ok(None);
    }
    let x = last.project(layer.ctx, input, "branch output")?;
    let rstd = normed(layer, norm, &x)?.1;
    Ok(Some(Output { x, rstd }))
}

fn normed(
    layer: Layer<'_>,
    norm: &Vector,
    x: &Buffer<f32>,
) -> Result<(Buffer<f32>, Buffer<f32>), Error> {
    let (ops, gain, eps) = (layer.ctx.ops, &norm.data, layer.geometry.eps);
    let mut rstd = Buffer::alloc(ops, SAVED, "rstd", x.len() / gain.len())?;
    let mut out = Buffer::alloc(ops, Owner::Workspace, "normed output", x.len())?;
    let to = ActivationsOut::Float(&mut out);
    ops.rmsnorm_forward(RmsNormForward { x, gain, eps, rstd: &mut rstd, out: to })?;
    Ok((out, rstd))
}

/// Adds a branch to the residual stream `y` f32 `[T, C]`; `input` is that of its last layer.
pub(super) fn add(
    layer: Layer<'_>,
    norm: &Vector,
    (last, input): (&Linear<Matrix, Vector>, &Activations),
    output: Option<&Output>,
    y: &mut Buffer<f32>,
) -> Result<(), Error> {
    let (ctx, scale) = (layer.ctx, layer.geometry.residual);
    let x = match output {
        Some(output) => normed(layer, norm, &output.x)?.0,
        None if scale == 1.0 => return last.add(ctx, input, y),
        None => last.project(ctx, input, "branch output")?,
    };
    ctx.ops.scaled_add(ScaledAdd { src: &x, scale, dst: y })
}

/// The gradient of a branch's output from `dx` f32 `[T, C]`, that of the residual stream behind it; absent where it is `dx`.
pub(super) fn output_gradient(
    layer: Layer<'_>,
    (norm, pending): (&Vector, &mut PendingVector),
    output: Option<Output>,
    dx: &Buffer<f32>,
) -> Result<Option<Buffer<f32>>, Error> {
    let ctx = layer.ctx;
    let scaled = match layer.geometry.residual {
        1.0 => None,
        factor => Some(scale::times(ctx, dx, factor)?),
    };
    let Some(output) = output else { return Ok(scaled) };
    let dy = scaled.as_ref().unwrap_or(dx);
    let mut dout = Buffer::zeros(ctx.ops, Owner::Workspace, "branch gradient", dx.len())?;
    rmsnorm::backward(ctx, norm, (&output.x, &output.rstd), dy, &mut dout, pending)?;
    Ok(Some(dout))
}

/// Adds to `dx` what comes back from the branch's input, whose gradient is `dinput`: through the norm of `x`, if it stands
/// before the branch.
pub(super) fn leave_gradient(
    layer: Layer<'_>,
    (norm, pending): (&mut Vector, &mut PendingVector),
    normed: Option<(&Buffer<f32>, &Buffer<f32>)>,
    dinput: &Buffer<f32>,
    dx: &mut Buffer<f32>,
    flush: &mut Flush<'_, '_, '_>,
) -> Result<(), Error> {
    let ctx = layer.ctx;
    match normed {
        Some(normed) => rmsnorm::backward(ctx, norm, normed, dinput, dx, pending)?,
        None => ctx.ops.scaled_add(ScaledAdd { src: dinput, scale: 1.0, dst: dx })?,
    }
    flush.vector(ctx, norm, pending)
}
