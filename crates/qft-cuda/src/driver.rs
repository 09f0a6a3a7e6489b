//! What the device needs of its machine.

use crate::{Arg, Error, Launch, Signature};
use qft_tensor::Pieces;
use std::any::Any;
use std::fmt;

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Its name.
    pub name: String,
    /// Its index among the machine's GPUs.
    pub ordinal: usize,
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// The most shared memory that a block can have, static and dynamic.
    pub max_shared_bytes: u32,
}

/// Memory of a GPU, all processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Not in use.
    pub free_bytes: u64,
    /// Installed.
    pub total_bytes: u64,
}

/// A GPU behind its driver, or the emulator of the tests.
///
/// Work is done in the order of the calls. Addresses are the device's, opaque to the host, and as long as they come from
/// [`Driver::alloc`] with their sizes kept, nothing here can touch host memory that was not passed.
pub trait Driver: Any + Send + Sync + fmt::Debug {
    /// What the device is.
    fn properties(&self) -> &Properties;

    /// Free and installed memory.
    fn memory_info(&self) -> Result<MemoryInfo, Error>;

    /// A new block of `bytes` > 0 with unspecified contents, aligned to at least 64 bytes.
    ///
    /// Errors: [`Error::OutOfMemory`].
    fn alloc(&self, bytes: usize) -> Result<u64, Error>;

    /// Gives a block back; work that uses it may still be under way.
    fn free(&self, address: u64) -> Result<(), Error>;

    /// Copies from the host; `src` may be reused when this returns.
    fn upload(&self, dst: u64, src: &[u8]) -> Result<(), Error>;

    /// Copies to the host; complete when this returns.
    fn download(&self, dst: &mut [u8], src: u64) -> Result<(), Error>;

    /// Copies on the device; the ranges do not overlap.
    fn copy(&self, dst: u64, src: u64, bytes: usize) -> Result<(), Error>;

    /// Copies pieces on the device, as many and as long as those of `from`; they do not overlap.
    fn copy_pieces(&self, dst: u64, to: Pieces, src: u64, from: Pieces) -> Result<(), Error>;

    /// Sets bytes to zero.
    fn zero(&self, dst: u64, bytes: usize) -> Result<(), Error>;

    /// Waits for all work.
    fn synchronize(&self) -> Result<(), Error>;

    /// What a kernel takes.
    ///
    /// Errors: [`Error::UnknownKernel`].
    fn signature(&self, kernel: &str) -> Result<Signature, Error>;

    /// Starts a kernel. The caller has compared the arguments with the signature, and the launch with the limits.
    fn launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error>;
}
