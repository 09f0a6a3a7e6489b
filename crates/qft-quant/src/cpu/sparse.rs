//! Products with the protected features.

use crate::{Error, SparseBackward, SparseForward};
use qft_tensor::Cpu;

pub(super) fn forward(_cpu: &Cpu, op: SparseForward<'_>) -> Result<(), Error> {
    op.check()
}

pub(super) fn backward(_cpu: &Cpu, op: SparseBackward<'_>) -> Result<(), Error> {
    op.check()
}
