//! Updates on the CPU.

use crate::{Error, FloatUpdate, LionUpdate, OptimOps};
use qft_tensor::Cpu;

impl OptimOps for Cpu {
    fn lion_update(&self, op: LionUpdate<'_>) -> Result<(), Error> {
        op.check()
    }

    fn float_update(&self, op: FloatUpdate<'_>) -> Result<(), Error> {
        op.check()
    }
}
