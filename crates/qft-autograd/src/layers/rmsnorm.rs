//! RMSNorm with a trained gain.

use crate::activations::Activations;
use crate::ops::{RmsNormBackward, RmsNormForward};
use crate::{Context, Error, GradientSink, InputFormat, Vector};
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

/// The gradient of a gain, summed over micro-batches until it is flushed.
#[derive(Debug, Default)]
pub struct PendingGain(Option<Buffer<f32>>);

impl PendingGain {
    /// Adds to `dx` the gradient through the norm, and to this sum the gradient of the gain.
    pub fn backward(
        &mut self,
        ctx: &Context<'_>,
        gain: &Vector,
        (x, rstd): (&Buffer<f32>, &Buffer<f32>),
        dy: &Buffer<f32>,
        dx: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        let dgain = match &mut self.0 {
            Some(sum) => sum,
            none => none.insert(Buffer::zeros(
                ctx.ops,
                Owner::Gradients,
                "gain gradient",
                gain.data.len(),
            )?),
        };
        ctx.ops.rmsnorm_backward(RmsNormBackward { x, gain: &gain.data, rstd, dy, dx, dgain })
    }

    /// Hands the sum to the sink.
    pub fn flush(&mut self, gain: &mut Vector, sink: &mut dyn GradientSink) -> Result<(), Error> {
        match self.0.take() {
            Some(sum) => sink.vector(gain, &sum),
            None => {
                Err(Error::WrongSaved { layer: "rmsnorm", what: "flushed before any backward" })
            }
        }
    }
}
