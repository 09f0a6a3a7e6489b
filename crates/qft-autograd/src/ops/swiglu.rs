//! SwiGLU.

use super::{ActivationsOut, expect};
use crate::Error;
use qft_tensor::Buffer;

/// SwiGLU (Shazeer, arXiv 2002.05202): `out = silu(gate) * up`.
///
/// Shapes: all `[T, F]`; `rows` is T.
#[derive(Debug)]
pub struct SwigluForward<'a> {
    /// Gate.
    pub gate: &'a Buffer<f32>,
    /// Up.
    pub up: &'a Buffer<f32>,
    /// T.
    pub rows: usize,
    /// The result.
    pub out: ActivationsOut<'a>,
}

impl SwigluForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "swiglu_forward";
        expect(OP, self.gate.len(), self.up.len())?;
        let cols = self.gate.len() / self.rows.max(1);
        expect(OP, self.rows * cols, self.gate.len())?;
        self.out.check(OP, self.rows, cols)
    }
}

/// Backward of SwiGLU, in place: `gate` becomes its gradient, `up` becomes its gradient.
///
/// Shapes: all f32 `[T, F]`.
#[derive(Debug)]
pub struct SwigluBackward<'a> {
    /// Gradient of the output.
    pub dy: &'a Buffer<f32>,
    /// Gate in, its gradient out.
    pub gate: &'a mut Buffer<f32>,
    /// Up in, its gradient out.
    pub up: &'a mut Buffer<f32>,
}

impl SwigluBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("swiglu_backward", self.dy.len(), self.gate.len())?;
        expect("swiglu_backward", self.dy.len(), self.up.len())
    }
}
