//! Device memory of buffers.

use crate::{Driver, Error};
use qft_tensor::buffer::Storage;
use qft_tensor::pool::PooledBlock;
use qft_tensor::{DType, DeviceKind};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// One allocation of a driver, given back when dropped.
pub(crate) struct DriverBlock {
    driver: Arc<dyn Driver>,
    address: u64,
}

impl DriverBlock {
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

impl Drop for DriverBlock {
    fn drop(&mut self) {
        // A failure here is one of an earlier kernel, which the next call reports as well.
        let _ = self.driver.free(self.address);
    }
}

impl fmt::Debug for DriverBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DriverBlock({:#x})", self.address)
    }
}

/// The memory behind a buffer of a [`crate::Cuda`].
pub(crate) struct DeviceBlock {
    block: PooledBlock<DriverBlock, DriverBlock>,
    ordinal: usize,
    dtype: DType,
    len: usize,
    /// Of a buffer of u32 that the host has filled: no element is larger. So indices are known to be in range without
    /// waiting for the device.
    largest: Option<u32>,
}

impl DeviceBlock {
    /// Memory for `len` elements, contents unknown.
    pub(crate) fn new(
        block: PooledBlock<DriverBlock, DriverBlock>,
        ordinal: usize,
        dtype: DType,
        len: usize,
    ) -> Self {
        Self { block, ordinal, dtype, len, largest: None }
    }

    /// An upper bound on the elements of a buffer of u32, if the host knows one.
    pub(crate) fn largest(&self) -> Option<u32> {
        self.largest
    }

    /// Notes that the host writes these bytes.
    pub(crate) fn uploaded(&mut self, bytes: &[u8]) {
        if self.dtype != DType::U32 {
            return;
        }
        let (words, _) = bytes.as_chunks::<4>();
        let largest = words.iter().map(|&word| u32::from_ne_bytes(word)).max().unwrap_or(0);
        let whole = words.len() == self.len;
        self.largest = if whole { Some(largest) } else { self.largest.map(|l| l.max(largest)) };
    }

    /// Notes that the device writes to the memory.
    pub(crate) fn written(&mut self) {
        self.largest = None;
    }

    /// The address, if the block is memory of `driver`.
    pub(crate) fn address_on(&self, driver: &Arc<dyn Driver>) -> Option<u64> {
        let (block, offset) = match &self.block {
            PooledBlock::Own(own) => (own.get()?, 0),
            PooledBlock::Part(part) => (part.region(), part.offset()),
        };
        Arc::ptr_eq(&block.driver, driver).then(|| block.address() + offset)
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
