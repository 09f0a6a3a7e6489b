//! Where gradients go.

use crate::layers::processes::{LateGradients, Lookups};
use crate::{Context, Error, Matrix, Vector};
use qft_tensor::Buffer;
use std::ops::Range;

/// Consumes gradients of parameters, by blocks of rows, during the backward pass.
///
/// A sink that updates the weights at once makes gradients *released*: no more than one block exists at a time.
/// A sink that quantizes and keeps them makes them *stored*. Backward passes call it only when the old weights
/// are needed no more.
pub trait GradientSink {
    /// Takes rows `rows` of the gradient of `matrix` as it is stored, [rotated](qft_tensor::rotation) or not: f32
    /// `[rows.len(), K]` at the start of `grad`, which may be overwritten.
    ///
    /// Rows come in rising order, each exactly once a step. In a job of several processes only those count that this one
    /// owns, [`Matrix::shard`].
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &mut Buffer<f32>,
    ) -> Result<(), Error>;

    /// Takes the whole gradient of `vector`.
    fn vector(&mut self, vector: &mut Vector, grad: &Buffer<f32>) -> Result<(), Error>;
}

/// The way of gradients to a sink: at once, or later, where other processes have a share in them.
pub struct Outlet<'a> {
    /// Where they go.
    pub sink: &'a mut dyn GradientSink,
    /// Those that come later.
    pub late: LateGradients,
}

impl<'a> Outlet<'a> {
    /// To `sink`.
    pub fn new(sink: &'a mut dyn GradientSink) -> Self {
        Self { sink, late: LateGradients::default() }
    }

    /// Waits for gradients of `matrix` until no more than `keep` blocks are on their way, and hands them to the sink with what
    /// `lookups` bring. Those of other matrices are left where they are, and all behind them.
    ///
    /// Errors: the job is lost; those of the sink.
    pub fn finish(
        &mut self,
        ctx: &Context<'_>,
        matrix: &mut Matrix,
        lookups: Lookups<'_>,
        keep: usize,
    ) -> Result<(), Error> {
        while self.late.len() > keep && self.late.next() == Some(matrix.id) {
            self.late.finish(ctx, matrix, lookups, &mut *self.sink)?;
        }
        Ok(())
    }

    /// The same of all of these matrices, without lookups.
    ///
    /// Errors: as [`finish`](Self::finish).
    pub fn finish_among(
        &mut self,
        ctx: &Context<'_>,
        matrices: &mut [&mut Matrix],
        keep: usize,
    ) -> Result<(), Error> {
        while self.late.len() > keep
            && let Some(id) = self.late.next()
            && let Some(matrix) = matrices.iter_mut().find(|matrix| matrix.id == id)
        {
            self.late.finish(ctx, matrix, &[], &mut *self.sink)?;
        }
        Ok(())
    }
}
