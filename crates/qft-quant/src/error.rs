//! The error type of this crate.

/// What can go wrong in the quantizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] qft_tensor::Error),
    /// The fraction of protected weights is out of range.
    #[error("fraction of protected weights {fraction}: expected 0 to {max}", max = crate::hybrid::MAX_PROTECTED_FRACTION)]
    ProtectedFraction {
        /// What was asked for.
        fraction: f64,
    },
    /// A weight that must be finite is not.
    #[error("encode: weight [{row}, {col}] is {value}, expected a finite number")]
    NotFinite {
        /// Row of the first such weight.
        row: usize,
        /// Its column.
        col: usize,
        /// Its value.
        value: f32,
    },
}
