//! Rotary embedding.

use super::expect;
use crate::Error;
use qft_tensor::Buffer;

/// Rotary embedding (Su et al., arXiv 2104.09864) in the half-split order of Hugging Face, in place.
///
/// For `i < R / 2` and angle `a = position * inv_freq[i]`:
/// `(x[i], x[i + R/2]) = s (x[i] cos a - x[i + R/2] sin a, x[i + R/2] cos a + x[i] sin a)`, where s is `scale` and R, twice the
/// frequencies, is D or less; channels from R on stay as they are. With `inverse` the angle is negated, which is the
/// backward pass.
/// Shapes: `x` f32 `[T, heads * D]`, `positions` u32 `[T]`, `inv_freq` f32 `[R / 2]`.
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
    /// Channels of a head, D.
    pub size: usize,
    /// The factor of what is turned.
    pub scale: f32,
    /// Rotate backwards.
    pub inverse: bool,
}

impl Rope<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "rope";
        if 2 * self.inv_freq.len() > self.size {
            let most = format_args!("at most {} frequencies", self.size / 2);
            return Err(Error::shape(OP, most, self.inv_freq.len()));
        }
        expect(OP, self.positions.len() * self.heads * self.size, self.x.len())
    }
}
