//! How a real number becomes an integer: always said, never implied.

use crate::RngKey;

/// The rounding of a quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest integer, ties to even. A weight update smaller than half a step is lost.
    Nearest,
    /// Up with the probability of the fraction, down otherwise: `floor(x + u)`, `u` uniform in [0, 1)
    /// with 16 bits, drawn from the stream of `key` with the element's place in the tensor as counter.
    /// Unbiased to 2^-17, and the same on every device and thread count.
    Stochastic {
        /// The stream.
        key: RngKey,
        /// The row of the tensor that comes first in the operation: a row has the same bits in whatever block of rows
        /// it is rounded.
        first_row: usize,
    },
}
