//! RMSNorm.

use super::{ActivationsOut, expect};
use crate::Error;
use qft_tensor::Buffer;

/// RMSNorm (Zhang and Sennrich, arXiv 1910.07467): `out = x * rstd * gain`, `rstd = 1 / sqrt(mean(x^2) + eps)`.
///
/// Shapes: `x` f32 `[T, C]`, `gain` f32 `[C]`, `rstd` f32 `[T]`.
/// Numerics: the mean in f32 over 16 lanes, combined in a fixed order.
#[derive(Debug)]
pub struct RmsNormForward<'a> {
    /// Input.
    pub x: &'a Buffer<f32>,
    /// Gain.
    pub gain: &'a Buffer<f32>,
    /// Added to the mean square.
    pub eps: f32,
    /// Saved for the backward pass.
    pub rstd: &'a mut Buffer<f32>,
    /// The result.
    pub out: ActivationsOut<'a>,
}

impl RmsNormForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "rmsnorm_forward";
        let (rows, cols) = (self.rstd.len(), self.gain.len());
        expect(OP, rows * cols, self.x.len())?;
        self.out.check(OP, rows, cols)
    }
}

/// Backward of RMSNorm: adds to `dx` and to `dgain`.
///
/// `dx += rstd * (dy * gain - xhat * mean(dy * gain * xhat))`, `dgain += sum over t of dy * xhat`, with
/// `xhat = x * rstd`. Shapes as forward; `dy`, `dx` f32 `[T, C]`, `dgain` f32 `[C]`.
/// Numerics: `dgain` is summed over fixed blocks of 64 tokens, then over blocks in order.
#[derive(Debug)]
pub struct RmsNormBackward<'a> {
    /// Input of the forward pass.
    pub x: &'a Buffer<f32>,
    /// Gain.
    pub gain: &'a Buffer<f32>,
    /// From the forward pass.
    pub rstd: &'a Buffer<f32>,
    /// Gradient of the output.
    pub dy: &'a Buffer<f32>,
    /// Added to.
    pub dx: &'a mut Buffer<f32>,
    /// Added to.
    pub dgain: &'a mut Buffer<f32>,
}

impl RmsNormBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "rmsnorm_backward";
        let (rows, cols) = (self.rstd.len(), self.gain.len());
        for len in [self.x.len(), self.dy.len(), self.dx.len()] {
            expect(OP, rows * cols, len)?;
        }
        expect(OP, cols, self.dgain.len())
    }
}
