//! Device memory of buffers.

use crate::{Driver, Error};
use qft_tensor::DeviceKind;
use qft_tensor::buffer::Storage;
use qft_tensor::pool::PooledBlock;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// One allocation of a driver, given back when dropped.
pub(crate) struct Block {
    driver: Arc<dyn Driver>,
    address: u64,
}

impl Block {
    /// Errors: those of [`Driver::alloc`].
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Self, Error> {
        // Empty buffers exist; a driver refuses an allocation of nothing.
        let address = driver.alloc(bytes.max(1))?;
        Ok(Self { driver: Arc::clone(driver), address })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // A failure here is one of an earlier kernel, which the next call reports as well.
        let _ = self.driver.free(self.address);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:#x})", self.address)
    }
}

/// The memory behind a buffer of a [`crate::Cuda`].
pub(crate) struct DeviceBlock {
    block: PooledBlock<Block>,
    ordinal: usize,
}

impl DeviceBlock {
    pub(crate) fn new(block: PooledBlock<Block>, ordinal: usize) -> Self {
        Self { block, ordinal }
    }

    /// The address, if the block is memory of `driver`.
    pub(crate) fn address_on(&self, driver: &Arc<dyn Driver>) -> Option<u64> {
        self.block.get().filter(|block| Arc::ptr_eq(&block.driver, driver)).map(Block::address)
    }
}

impl fmt::Debug for DeviceBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.block.fmt(f)
    }
}

impl Storage for DeviceBlock {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda(self.ordinal)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
