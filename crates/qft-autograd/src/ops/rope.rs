//! Rotary embedding.

use super::expect;
use crate::Error;
use qft_tensor::Buffer;

/// Rotary embedding (Su et al., arXiv 2104.09864) in the half-split order of Hugging Face, in place.
///
/// For `i < D / 2` and angle `a = position * inv_freq[i]`:
/// `(x[i], x[i + D/2]) = (x[i] cos a - x[i + D/2] sin a, x[i + D/2] cos a + x[i] sin a)`; with `inverse` the
/// angle is negated, which is the backward pass.
/// Shapes: `x` f32 `[T, heads * D]`, `positions` u32 `[T]`, `inv_freq` f32 `[D / 2]`.
#[derive(Debug)]
pub struct Rope<'a> {
    /// Rotated in place.
    pub x: &'a mut Buffer<f32>,
    /// Position of each token in its document.
    pub positions: &'a Buffer<u32>,
    /// Inverse frequencies.
    pub inv_freq: &'a Buffer<f32>,
    /// Heads in a row.
    pub heads: usize,
    /// Rotate backwards.
    pub inverse: bool,
}

impl Rope<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("rope", self.positions.len() * self.heads * self.inv_freq.len() * 2, self.x.len())
    }
}
