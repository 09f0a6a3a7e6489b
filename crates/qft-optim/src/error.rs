//! The error type of this crate.

/// What can go wrong in the optimizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] qft_tensor::Error),
    /// A quantizer operation failed.
    #[error(transparent)]
    Quant(#[from] qft_quant::Error),
    /// A hyper-parameter is out of range.
    #[error("{name} = {value}: expected {expected}")]
    OutOfRange {
        /// The hyper-parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What would be accepted.
        expected: &'static str,
    },
}
