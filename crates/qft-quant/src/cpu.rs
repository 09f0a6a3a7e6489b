//! Hybrid operations on the CPU.

mod decode;
mod sparse;
mod transpose;

use crate::{DecodeRows, Error, HybridOps, SparseBackward, SparseForward};
use qft_tensor::Cpu;

impl HybridOps for Cpu {
    fn decode_rows(&self, op: DecodeRows<'_>) -> Result<(), Error> {
        decode::decode_rows(self, op)
    }

    fn sparse_forward(&self, op: SparseForward<'_>) -> Result<(), Error> {
        sparse::forward(self, op)
    }

    fn sparse_backward(&self, op: SparseBackward<'_>) -> Result<(), Error> {
        sparse::backward(self, op)
    }
}
