//! The MLP of a block: SwiGLU between three linear layers.

use super::linear::{Flush, PendingMatrix};
use crate::geometry::Layer;
use crate::params::MlpParams;
use qft_autograd::layers::linear;
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::ops::{SwigluBackward, SwigluForward};
use qft_autograd::{Activations, Error, Matrix, Vector};
use qft_tensor::{Buffer, Owner};
use std::sync::Arc;

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub(super) struct SavedMlp {
    gate: Buffer<f32>,
    up: Buffer<f32>,
    activated: Arc<Activations>,
}

impl SavedMlp {
    /// The input of the last product.
    pub(super) fn output(&self) -> &Activations {
        &self.activated
    }
}

impl MlpParams<Matrix, Vector> {
    /// All but the last product, for `input` `[T, C]`.
    pub(super) fn forward(&self, layer: Layer<'_>, input: &Activations) -> Result<SavedMlp, Error> {
        let ctx = layer.ctx;
        let gate = self.gate.project(ctx, input, "gate")?;
        let up = self.up.project(ctx, input, "up")?;
        let (rows, down) = (input.shape().0, &self.down.weight);
        let format = down.input(ctx.compute);
        let shape = (rows, down.cols());
        let mut activated = Activations::alloc(ctx.ops, format, "activated", shape)?;
        let out = activated.out();
        ctx.ops.swiglu_forward(SwigluForward { gate: &gate, up: &up, rows, out })?;
        activated.rotate_floats(ctx.ops, format)?;
        Ok(SavedMlp { gate, up, activated: Arc::new(activated) })
    }

    /// The gradient of `input`, f32 `[T, C]`, from that of the output, `dy` f32 `[T, C]`.
    pub(super) fn backward(
        &mut self,
        layer: Layer<'_>,
        input: Arc<Activations>,
        SavedMlp { mut gate, mut up, activated }: SavedMlp,
        dy: &Buffer<f32>,
        pending: &mut MlpParams<PendingMatrix, PendingVector>,
        flush: &mut Flush<'_, '_, '_>,
    ) -> Result<Buffer<f32>, Error> {
        let (ctx, ops) = (layer.ctx, layer.ctx.ops);
        let mut dact = Buffer::alloc(ops, Owner::Workspace, "activated gradient", gate.len())?;
        self.down.backward(ctx, &activated, dy, (&mut dact, false), &mut pending.down)?;
        linear::rotate(ctx, &self.down.weight, &mut dact)?;
        drop(activated);
        flush.linear(ctx, &mut self.down, &mut pending.down)?;
        ops.swiglu_backward(SwigluBackward { dy: &dact, gate: &mut gate, up: &mut up })?;
        drop(dact);
        let mut dinput = Buffer::alloc(ops, Owner::Workspace, "normed gradient", dy.len())?;
        self.gate.backward(ctx, &input, &gate, (&mut dinput, false), &mut pending.gate)?;
        drop(gate);
        self.up.backward(ctx, &input, &up, (&mut dinput, true), &mut pending.up)?;
        linear::rotate(ctx, &self.up.weight, &mut dinput)?;
        drop((up, input));
        flush.linear(ctx, &mut self.gate, &mut pending.gate)?;
        flush.linear(ctx, &mut self.up, &mut pending.up)?;
        Ok(dinput)
    }
}
