//! How a branch of a block leaves the residual stream, and how its gradient comes back: through a norm.

use super::linear::Flush;
use crate::geometry::Layer;
use crate::params::Linear;
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::layers::rmsnorm;
use qft_autograd::{Activations, Error, Matrix, Vector};
use qft_tensor::Buffer;
use std::sync::Arc;

/// The input of a branch.
#[derive(Debug)]
pub(super) struct Entered {
    /// Normed, as linear layers read it.
    pub(super) input: Arc<Activations>,
    pub(super) rstd: Buffer<f32>,
}

/// What the backward pass of a branch needs of its forward pass.
#[derive(Debug)]
pub(super) struct SavedBranch<S> {
    pub(super) entered: Entered,
    pub(super) inner: S,
}

/// Norms the residual stream `x` f32 `[T, C]` into the format that `first`, the first layer of a branch, reads.
pub(super) fn enter(
    layer: Layer<'_>,
    norm: &Vector,
    first: &Linear<Matrix, Vector>,
    x: &Buffer<f32>,
) -> Result<Entered, Error> {
    let format = first.weight.input(layer.ctx.compute);
    let (input, rstd) = rmsnorm::forward(layer.ctx, format, norm, layer.geometry.eps, x)?;
    Ok(Entered { input: Arc::new(input), rstd })
}

/// Adds to `dx` what comes through the norm of `x`, from the gradient `dnormed` of a branch's input.
pub(super) fn backward(
    layer: Layer<'_>,
    (norm, pending): (&mut Vector, &mut PendingVector),
    (x, rstd): (&Buffer<f32>, &Buffer<f32>),
    dnormed: &Buffer<f32>,
    dx: &mut Buffer<f32>,
    flush: &mut Flush<'_>,
) -> Result<(), Error> {
    rmsnorm::backward(layer.ctx, norm, (x, rstd), dnormed, dx, pending)?;
    flush.vector(norm, pending)
}
