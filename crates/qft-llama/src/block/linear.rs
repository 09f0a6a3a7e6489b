//! A linear layer of a block: its product, its gradients, and when they are handed over.

use super::SAVED;
use crate::params::Linear;
use qft_autograd::layers::bias;
use qft_autograd::layers::linear::{self, PendingGradient};
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::{Activations, Context, Error, Matrix, Outlet, Vector};
use qft_tensor::Buffer;
use std::sync::Arc;

/// The shares of all micro-batches in a weight gradient.
pub(crate) type PendingMatrix = Vec<PendingGradient>;

/// Gradients of a linear layer that wait.
pub(super) type PendingLinear = Linear<PendingMatrix, PendingVector>;

/// Where gradients go once the last micro-batch has passed; before that, nowhere.
pub(crate) enum Flush<'a, 'b, 'c> {
    /// More micro-batches come.
    Later,
    /// The last has passed.
    To {
        /// Where they go.
        outlet: &'a mut Outlet<'b>,
        /// Matrices whose backward pass is over, and whose gradients from other processes may be on their way.
        behind: &'a mut [&'c mut Matrix],
        /// How many blocks of rows may be.
        keep: usize,
    },
}

impl Flush<'_, '_, '_> {
    pub(super) fn vector(
        &mut self,
        ctx: &Context<'_>,
        vector: &mut Vector,
        pending: &mut PendingVector,
    ) -> Result<(), Error> {
        match self {
            Self::To { outlet, .. } => pending.flush(ctx, vector, &mut *outlet.sink),
            Self::Later => Ok(()),
        }
    }

    pub(super) fn linear(
        &mut self,
        ctx: &Context<'_>,
        layer: &mut Linear<Matrix, Vector>,
        pending: &mut PendingLinear,
    ) -> Result<(), Error> {
        let Self::To { outlet, behind, keep } = self else { return Ok(()) };
        linear::flush(ctx, &mut layer.weight, &mut pending.weight, outlet)?;
        outlet.finish_among(ctx, behind, *keep)?;
        match (&mut layer.bias, &mut pending.bias) {
            (Some(bias), Some(pending)) => self.vector(ctx, bias, pending),
            _ => Ok(()),
        }
    }
}

impl Linear<Matrix, Vector> {
    /// `x W^T + b` in a new buffer, f32 `[T, N]`.
    pub(super) fn project(
        &self,
        ctx: &Context<'_>,
        x: &Activations,
        name: &'static str,
    ) -> Result<Buffer<f32>, Error> {
        let rows = self.weight.rows();
        let mut y = Buffer::alloc(ctx.ops, SAVED, name, x.shape().0 * rows)?;
        linear::forward(ctx, &self.weight, 0..rows, x, &mut y, false)?;
        self.add_bias(ctx, &mut y)?;
        Ok(y)
    }

    /// Adds `x W^T + b` to `y` f32 `[T, N]`.
    pub(super) fn add(
        &self,
        ctx: &Context<'_>,
        x: &Activations,
        y: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        linear::forward(ctx, &self.weight, 0..self.weight.rows(), x, y, true)?;
        self.add_bias(ctx, y)
    }

    fn add_bias(&self, ctx: &Context<'_>, y: &mut Buffer<f32>) -> Result<(), Error> {
        match &self.bias {
            Some(bias) => bias::forward(ctx, bias, y),
            None => Ok(()),
        }
    }

    /// `dx (+)= dy W`, in the basis of `x`; what `dW` and `db` need goes to `pending`.
    pub(super) fn backward(
        &self,
        ctx: &Context<'_>,
        x: &Arc<Activations>,
        dy: &Buffer<f32>,
        (dx, accumulate): (&mut Buffer<f32>, bool),
        pending: &mut PendingLinear,
    ) -> Result<(), Error> {
        let w = &self.weight;
        let (for_input, for_weight) = linear::rounding(ctx, w)?;
        linear::backward_input(ctx, w, 0..w.rows(), dy, for_input, dx, accumulate)?;
        pending.weight.push(PendingGradient::new(ctx, w, x, dy, w.rows(), for_weight)?);
        match (&self.bias, &mut pending.bias) {
            (Some(bias), Some(pending)) => bias::backward(ctx, bias, dy, pending),
            _ => Ok(()),
        }
    }
}
