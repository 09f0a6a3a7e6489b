//! bf16 and f32.

use super::expect;
use crate::Error;
use half::bf16;
use qft_tensor::Buffer;

/// Rounds to bf16, nearest even.
#[derive(Debug)]
pub struct ToBf16<'a> {
    /// f32.
    pub src: &'a Buffer<f32>,
    /// bf16, same length.
    pub dst: &'a mut Buffer<bf16>,
}

impl ToBf16<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("to_bf16", self.src.len(), self.dst.len())
    }
}

/// Widens bf16, exactly.
#[derive(Debug)]
pub struct FromBf16<'a> {
    /// bf16.
    pub src: &'a Buffer<bf16>,
    /// f32, same length.
    pub dst: &'a mut Buffer<f32>,
}

impl FromBf16<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("from_bf16", self.src.len(), self.dst.len())
    }
}
