//! Products with a number.

use crate::ops::ScaledAdd;
use crate::{Context, Error};
use qft_tensor::{Buffer, Owner};

/// `x` times `factor`.
pub fn scaled(ctx: &Context<'_>, x: Buffer<f32>, factor: f32) -> Result<Buffer<f32>, Error> {
    if factor == 1.0 { Ok(x) } else { times(ctx, &x, factor) }
}

/// `x` times `factor`, in a buffer of its own.
pub fn times(ctx: &Context<'_>, x: &Buffer<f32>, factor: f32) -> Result<Buffer<f32>, Error> {
    let mut product = Buffer::zeros(ctx.ops, Owner::Workspace, "multiple", x.len())?;
    ctx.ops.scaled_add(ScaledAdd { src: x, scale: factor, dst: &mut product })?;
    Ok(product)
}
