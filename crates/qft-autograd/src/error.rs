//! The error type of this crate.

/// What can go wrong in a layer or on a stack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] qft_tensor::Error),
    /// A quantizer operation failed.
    #[error(transparent)]
    Quant(#[from] qft_quant::Error),
    /// A stack was popped more often than pushed.
    #[error("{stack} stack: popped while empty; forward and backward passes do not match")]
    EmptyStack {
        /// Which stack.
        stack: &'static str,
    },
    /// Saved tensors are of another kind than the backward pass needs.
    #[error("{layer}: {what}")]
    WrongSaved {
        /// The layer.
        layer: &'static str,
        /// What was found.
        what: &'static str,
    },
    /// An index points outside its table.
    #[error("{op}: id {id} at position {position} is outside the table of {len}")]
    IndexOutOfRange {
        /// The operation.
        op: &'static str,
        /// The index.
        id: u32,
        /// Where it stands.
        position: usize,
        /// Entries of the table.
        len: usize,
    },
    /// The loss is not a number, or infinite.
    #[error(
        "loss: the sum over the batch is {sum}; lower the learning rate or look for broken data"
    )]
    LossNotFinite {
        /// Sum of negative log-likelihoods.
        sum: f64,
    },
    /// Whoever consumes gradients failed.
    #[error("gradient sink: {0}")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn shape(
        op: &'static str,
        want: impl std::fmt::Display,
        got: impl std::fmt::Display,
    ) -> Self {
        qft_tensor::Error::shape(op, want, got).into()
    }
}
