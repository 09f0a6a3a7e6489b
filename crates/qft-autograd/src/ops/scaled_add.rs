//! Sums of buffers.

use super::expect;
use crate::Error;
use qft_tensor::Buffer;

/// `dst += scale * src`.
///
/// Shapes: f32, both of the same length. Numerics: one fused product and sum.
#[derive(Debug)]
pub struct ScaledAdd<'a> {
    /// Added.
    pub src: &'a Buffer<f32>,
    /// Its factor.
    pub scale: f32,
    /// Added to.
    pub dst: &'a mut Buffer<f32>,
}

impl ScaledAdd<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("scaled_add", self.src.len(), self.dst.len())
    }
}
