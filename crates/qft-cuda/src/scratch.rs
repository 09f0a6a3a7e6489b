//! The device's fixed scratch block, for reductions across blocks.

use crate::memory::Block;
use crate::{Arg, Cuda, Driver, Error};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of the scratch block. It stands outside of the ledger: it belongs to the device, not to a model.
pub(crate) const SCRATCH_BYTES: usize = 32 << 20;

#[derive(Debug)]
pub(crate) struct Scratch(Mutex<Block>);

impl Scratch {
    pub(crate) fn new(driver: &Arc<dyn Driver>) -> Result<Self, Error> {
        Ok(Self(Mutex::new(Block::new(driver, SCRATCH_BYTES)?)))
    }
}

/// The scratch block while one operation issues its kernels; another thread's operation waits.
#[derive(Debug)]
pub(crate) struct ScratchUse<'a>(MutexGuard<'a, Block>);

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
        if bytes > SCRATCH_BYTES {
            let message = format!("needs {bytes} bytes of scratch, there are {SCRATCH_BYTES}");
            return Err(qft_tensor::Error::DeviceFailure { op, message });
        }
        Ok(ScratchUse(self.scratch_block().lock()))
    }
}

impl Scratch {
    fn lock(&self) -> MutexGuard<'_, Block> {
        // The block's address never changes, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
