//! The device's fixed scratch block, for reductions across blocks.

use crate::memory::DriverBlock;
use crate::{Arg, Cuda, Driver, Error};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of the scratch block that every device has.
pub(crate) const SCRATCH_BYTES: usize = 32 << 20;

/// Its bytes where gradients are transposed for products of warpgroups: 2048 outputs of 65,536 tokens.
pub(crate) const HOPPER_SCRATCH_BYTES: usize = 128 << 20;

/// The scratch block. It stands outside of the ledger: it belongs to the device, not to a model.
#[derive(Debug)]
pub(crate) struct Scratch {
    block: Mutex<DriverBlock>,
    bytes: usize,
}

impl Scratch {
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Self, Error> {
        Ok(Self { block: Mutex::new(DriverBlock::new(driver, bytes)?), bytes })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The scratch block while one operation issues its kernels; another thread's operation waits.
#[derive(Debug)]
pub(crate) struct ScratchUse<'a>(MutexGuard<'a, DriverBlock>);

impl ScratchUse<'_> {
    /// The address of its byte `offset`.
    pub(crate) fn at(&self, offset: usize) -> Arg {
        Arg::Ptr(self.0.address() + offset as u64)
    }
}

impl Cuda {
    /// The scratch block with unspecified contents, at least `bytes` of it.
    ///
    /// Errors: a failure of the operation `op` if it needs more than there is, which is a defect of the operation.
    pub(crate) fn scratch(
        &self,
        op: &'static str,
        bytes: usize,
    ) -> Result<ScratchUse<'_>, qft_tensor::Error> {
        let all = self.scratch_block().bytes();
        if bytes > all {
            let message = format!("needs {bytes} bytes of scratch, there are {all}");
            return Err(qft_tensor::Error::DeviceFailure { op, message });
        }
        Ok(ScratchUse(self.scratch_block().lock()))
    }
}

impl Scratch {
    fn lock(&self) -> MutexGuard<'_, DriverBlock> {
        // The block's address never changes, so a panic elsewhere leaves nothing half done.
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
