//! What every device can do: allocate, copy, and account for its memory.

use crate::buffer::RawBuffer;
use crate::{Collectives, Communicator, DType, Error, Host, Ledger, Owner, Pieces};
use std::fmt;
use std::sync::Arc;

/// Where a buffer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// Host memory.
    Cpu,
    /// Nowhere: the buffer is only counted.
    Planner,
    /// An NVIDIA GPU, by index.
    Cuda(usize),
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Planner => f.write_str("planner"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Memory of one device. Operations live in the traits built upon this one.
///
/// Typed access goes through [`crate::Buffer`]. All offsets and lengths here are in bytes and have been
/// checked against the buffer by the caller.
pub trait Device: Send + Sync + fmt::Debug {
    /// Where this device's buffers live.
    fn kind(&self) -> DeviceKind;

    /// The ledger in which every buffer of this device is registered.
    fn ledger(&self) -> &Arc<Ledger>;

    /// The processor that works for this device: what is read, encoded or made up for it is made there.
    ///
    /// Errors: [`Error::NoHost`] for a device that only counts.
    fn host(&self) -> Result<&Host, Error>;

    /// The processes that work on one model together, this one among them.
    fn communicator(&self) -> &dyn Communicator;

    /// What the devices of these processes exchange between their memories, where they can.
    fn collectives(&self) -> Option<&dyn Collectives>;

    /// Allocates `len` elements with unspecified values.
    ///
    /// Errors: [`Error::OutOfMemory`].
    fn alloc_raw(
        &self,
        owner: Owner,
        name: &'static str,
        dtype: DType,
        len: usize,
    ) -> Result<RawBuffer, Error>;

    /// Copies host bytes to the device; `src` may be reused when this returns.
    fn upload_raw(&self, dst: &mut RawBuffer, offset: usize, src: &[u8]) -> Result<(), Error>;

    /// Copies device bytes to the host; complete when this returns.
    fn download_raw(&self, src: &RawBuffer, offset: usize, dst: &mut [u8]) -> Result<(), Error>;

    /// Copies between two buffers of this device, in order with its other work.
    fn copy_raw(
        &self,
        dst: &mut RawBuffer,
        dst_offset: usize,
        src: &RawBuffer,
        src_offset: usize,
        bytes: usize,
    ) -> Result<(), Error>;

    /// Copies pieces between two buffers of this device, as many and as long as those of `from`, in order with its other work.
    fn copy_pieces_raw(
        &self,
        dst: &mut RawBuffer,
        to: Pieces,
        src: &RawBuffer,
        from: Pieces,
    ) -> Result<(), Error>;

    /// Sets bytes to zero, in order with the device's other work.
    fn zero_raw(&self, dst: &mut RawBuffer, offset: usize, bytes: usize) -> Result<(), Error>;

    /// Waits until all work given to the device is done.
    fn synchronize(&self) -> Result<(), Error>;

    /// Takes `bytes` from the system at once, out of which buffers of pooled owners are served from now on, in place of what was
    /// reserved before; zero gives that back. Buffers for which there is no place in it are allocated as without it.
    ///
    /// Errors: [`Error::OutOfMemory`]; [`Error::ArenaInUse`] if buffers are in what was reserved before.
    fn reserve(&self, bytes: u64) -> Result<(), Error>;

    /// Returns freed blocks that were kept for reuse to the system. What was reserved stays.
    fn trim(&self);
}
