//! Hybrid operations that only check their shapes.

use crate::{DecodeRows, Error, HybridOps, SparseBackward, SparseForward};
use qft_tensor::Planner;

impl HybridOps for Planner {
    fn decode_rows(&self, op: DecodeRows<'_>) -> Result<(), Error> {
        op.check()
    }

    fn sparse_forward(&self, op: SparseForward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn sparse_backward(&self, op: SparseBackward<'_>) -> Result<(), Error> {
        op.check()
    }
}
