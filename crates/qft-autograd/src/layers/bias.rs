//! The bias of a linear layer.

use super::pending::PendingVector;
use crate::ops::{AddBias, BiasGradient};
use crate::{Context, Error, Vector};
use qft_tensor::Buffer;

/// Adds the bias to `y` f32 `[T, N]`.
pub fn forward(ctx: &Context<'_>, bias: &Vector, y: &mut Buffer<f32>) -> Result<(), Error> {
    ctx.ops.add_bias(AddBias { y, bias: &bias.data })
}

/// Adds to `dbias` the gradient of the bias, from that of the layer's output, `dy` f32 `[T, N]`.
pub fn backward(
    ctx: &Context<'_>,
    bias: &Vector,
    dy: &Buffer<f32>,
    dbias: &mut PendingVector,
) -> Result<(), Error> {
    let dbias = dbias.sum(ctx, bias)?;
    ctx.ops.bias_gradient(BiasGradient { dy, dbias })
}
