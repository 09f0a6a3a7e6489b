//! One transformer block: attention and MLP, each with a norm, each added to the residual stream.

pub(crate) mod attention;
mod head_norm;
mod linear;
mod mlp;
mod residual;

use crate::geometry::Layer;
use crate::params::{BlockParams, Map};
use crate::stream::Stream;
use attention::{KeyValueCache, Reading, SavedAttention};
pub(crate) use linear::Flush;
use linear::PendingMatrix;
use mlp::SavedMlp;
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::{Activations, Error, Matrix, Segments, Vector};
use qft_tensor::{Buffer, Owner};
use residual::{Entered, Output, SavedBranch};
use std::convert::Infallible;

/// A transformer block.
pub type Block = BlockParams<Matrix, Vector>;

/// Gradients of a block that wait until all micro-batches have passed it.
pub(crate) type PendingBlock = BlockParams<PendingMatrix, PendingVector>;

/// What the backward pass of a block needs of its forward pass.
#[derive(Debug)]
pub(crate) struct SavedBlock {
    x: Stream,
    attention: SavedBranch<SavedAttention>,
    /// Residual stream between attention and MLP.
    mid: Buffer<f32>,
    mlp: SavedBranch<SavedMlp>,
}

const SAVED: Owner = Owner::Activations;

impl Block {
    /// The output for `x` f32 `[T, C]`; nothing is kept.
    pub(crate) fn infer(
        &self,
        layer: Layer<'_>,
        segments: &Segments,
        mut x: Buffer<f32>,
    ) -> Result<Buffer<f32>, Error> {
        drop(self.attend(layer, segments, &mut x)?);
        self.feed_forward(layer, &mut x)?;
        Ok(x)
    }

    /// The output for `x` f32 `[T, C]`, and what the backward pass needs; `input` is `x` as kept.
    pub(crate) fn forward(
        &self,
        layer: Layer<'_>,
        segments: &Segments,
        x: Buffer<f32>,
        input: Stream,
    ) -> Result<(Buffer<f32>, SavedBlock), Error> {
        let saved = self.rebuild(layer, segments, x, input)?;
        let ops = layer.ctx.ops;
        let mut y = Buffer::alloc(ops, SAVED, "residual stream", saved.mid.len())?;
        y.copy_from(ops, 0, &saved.mid, 0..saved.mid.len())?;
        self.add_mlp(layer, &saved.mlp, &mut y)?;
        Ok((y, saved))
    }

    /// What the backward pass needs, without the output.
    pub(crate) fn rebuild(
        &self,
        layer: Layer<'_>,
        segments: &Segments,
        x: Buffer<f32>,
        input: Stream,
    ) -> Result<SavedBlock, Error> {
        let mut mid = x;
        let attention = self.attend(layer, segments, &mut mid)?;
        let mlp = self.mlp_branch(layer, &mid)?;
        Ok(SavedBlock { x: input, attention, mid, mlp })
    }

    /// The output for the new tokens of some texts, `x` f32 `[n, C]` one text behind the other; enters their keys and values
    /// into the texts' caches.
    pub(crate) fn decode(
        &self,
        layer: Layer<'_>,
        texts: &mut [(Reading, &mut KeyValueCache)],
        mut x: Buffer<f32>,
    ) -> Result<Buffer<f32>, Error> {
        let entered = residual::enter(layer, &self.attention_norm, &self.attention.q, &x)?;
        let inner = self.attention.decode(layer, &entered.input, texts)?;
        self.add_attention(layer, inner.activations(), &mut x)?;
        drop((entered, inner));
        self.feed_forward(layer, &mut x)?;
        Ok(x)
    }

    /// Adds attention to the residual stream.
    fn attend(
        &self,
        layer: Layer<'_>,
        segments: &Segments,
        x: &mut Buffer<f32>,
    ) -> Result<SavedBranch<SavedAttention>, Error> {
        let entered = residual::enter(layer, &self.attention_norm, &self.attention.q, x)?;
        let inner = self.attention.forward(layer, segments, &entered.input)?;
        let output = self.add_attention(layer, inner.output(), x)?;
        Ok(SavedBranch { entered, inner, output })
    }

    fn add_attention(
        &self,
        layer: Layer<'_>,
        input: &Activations,
        x: &mut Buffer<f32>,
    ) -> Result<Option<Output>, Error> {
        let (norm, last) = (&self.attention_norm, &self.attention.o);
        let output = residual::output(layer, norm, last, input)?;
        residual::add(layer, norm, (last, input), output.as_ref(), x)?;
        Ok(output)
    }

    /// The MLP, not yet added to the residual stream.
    fn mlp_branch(
        &self,
        layer: Layer<'_>,
        x: &Buffer<f32>,
    ) -> Result<SavedBranch<SavedMlp>, Error> {
        let entered = residual::enter(layer, &self.mlp_norm, &self.mlp.gate, x)?;
        let inner = self.mlp.forward(layer, &entered.input)?;
        let output = residual::output(layer, &self.mlp_norm, &self.mlp.down, inner.output())?;
        Ok(SavedBranch { entered, inner, output })
    }

    fn add_mlp(
        &self,
        layer: Layer<'_>,
        branch: &SavedBranch<SavedMlp>,
        x: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        let last = (&self.mlp.down, branch.inner.output());
        residual::add(layer, &self.mlp_norm, last, branch.output.as_ref(), x)
    }

    /// Adds the MLP to the residual stream; nothing is kept.
    fn feed_forward(&self, layer: Layer<'_>, x: &mut Buffer<f32>) -> Result<(), Error> {
        let branch = self.mlp_branch(layer, x)?;
        self.add_mlp(layer, &branch, x)
    }

    /// Backward pass over one micro-batch: `dx` f32 `[T, C]` is the gradient of the output on entry and that of
    /// the input on return. With a sink this is the last micro-batch, and every parameter is flushed as soon as
    /// its old value is needed no more.
    pub(crate) fn backward(
        &mut self,
        layer: Layer<'_>,
        segments: &Segments,
        SavedBlock { x, attention, mid, mlp }: SavedBlock,
        dx: &mut Buffer<f32>,
        pending: &mut PendingBlock,
        flush: &mut Flush<'_, '_, '_>,
    ) -> Result<(), Error> {
        let SavedBranch { entered: Entered { input, rstd }, inner, output } = mlp;
        let norm = (&self.mlp_norm, &mut pending.mlp_norm);
        let dy = residual::output_gradient(layer, norm, output, dx)?;
        let grad = dy.as_ref().unwrap_or(dx);
        let dinput = self.mlp.backward(layer, input, inner, grad, &mut pending.mlp, flush)?;
        drop(dy);
        let normed = rstd.as_ref().map(|rstd| (&mid, rstd));
        let norm = (&mut self.mlp_norm, &mut pending.mlp_norm);
        residual::leave_gradient(layer, norm, normed, &dinput, dx, flush)?;
        drop((dinput, mid, rstd));

        let SavedBranch { entered: Entered { input, rstd }, inner, output } = attention;
        let norm = (&self.attention_norm, &mut pending.attention_norm);
        let dy = residual::output_gradient(layer, norm, output, dx)?;
        let (saved, grad) = ((input, inner), dy.as_ref().unwrap_or(dx));
        let dinput =
            self.attention.backward(layer, segments, saved, grad, &mut pending.attention, flush)?;
        drop(dy);
        let x = x.into_float(layer.ctx.ops)?;
        let normed = rstd.as_ref().map(|rstd| (&x, rstd));
        let norm = (&mut self.attention_norm, &mut pending.attention_norm);
        residual::leave_gradient(layer, norm, normed, &dinput, dx, flush)
    }

    /// Room for the gradients of this block.
    pub(crate) fn pending(&self) -> PendingBlock {
        struct Empty;
        impl Map<&Matrix, &Vector> for Empty {
            type Matrix = PendingMatrix;
            type Vector = PendingVector;
            type Error = Infallible;

            fn matrix(&mut self, _: &Matrix) -> Result<PendingMatrix, Infallible> {
                Ok(PendingMatrix::default())
            }

            fn vector(&mut self, _: &Vector) -> Result<PendingVector, Infallible> {
                Ok(PendingVector::default())
            }
        }
        let Ok(pending) = self.as_ref().map(&mut Empty);
        pending
    }
}
