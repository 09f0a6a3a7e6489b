//! Biases of linear layers.

use super::expect;
use crate::Error;
use qft_tensor::Buffer;

/// Adds a bias to every token: `y[t, n] += bias[n]`.
///
/// Shapes: `y` f32 `[T, N]`, `bias` f32 `[N]`.
#[derive(Debug)]
pub struct AddBias<'a> {
    /// Added to.
    pub y: &'a mut Buffer<f32>,
    /// The bias.
    pub bias: &'a Buffer<f32>,
}

impl AddBias<'_> {
    /// Checks all shapes; T.
    pub fn check(&self) -> Result<usize, Error> {
        tokens("add_bias", self.y.len(), self.bias.len())
    }
}

/// Backward of [`AddBias`]: `dbias[n] += sum over t of dy[t, n]`.
///
/// Shapes: `dy` f32 `[T, N]`, `dbias` f32 `[N]`. Numerics: summed over fixed blocks of 64 tokens, then over blocks in
/// order.
#[derive(Debug)]
pub struct BiasGradient<'a> {
    /// Gradient of the output.
    pub dy: &'a Buffer<f32>,
    /// Added to.
    pub dbias: &'a mut Buffer<f32>,
}

impl BiasGradient<'_> {
    /// Checks all shapes; T.
    pub fn check(&self) -> Result<usize, Error> {
        tokens("bias_gradient", self.dy.len(), self.dbias.len())
    }
}

fn tokens(op: &'static str, elements: usize, width: usize) -> Result<usize, Error> {
    let tokens = elements / width.max(1);
    expect(op, tokens * width, elements)?;
    Ok(tokens)
}
