//! Hybrid operations on the CPU.

use crate::{DecodeRows, Error, HybridOps, SparseBackward, SparseForward};
use qft_tensor::Cpu;

impl HybridOps for Cpu {
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
