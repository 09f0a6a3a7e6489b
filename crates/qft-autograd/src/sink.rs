//! Where gradients go.

use crate::{Error, Matrix, Vector};
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
