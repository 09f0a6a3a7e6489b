//! The CPU backend: memory, threads, and the implementation of every operation of this crate.

mod gemm;
mod memory;
mod quantize;
pub mod wide;

use crate::buffer::RawBuffer;
use crate::pool::FreeBlocks;
use crate::{DType, Device, DeviceKind, Error, Isa, Ledger, Owner};
use memory::{Block, HostBlock};
use rayon::prelude::*;
use std::fmt;
use std::sync::Arc;

/// How a [`Cpu`] is set up.
#[derive(Debug, Clone, Copy)]
pub struct CpuConfig {
    /// Worker threads; 0 means as many as the machine has.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
}

impl CpuConfig {
    /// All threads, and the instruction set of [`Isa::detect`].
    ///
    /// Errors: [`Error::UnsupportedIsa`].
    pub fn detect() -> Result<Self, Error> {
        Ok(Self { threads: 0, isa: Isa::detect()? })
    }
}

/// The host processor.
///
/// Results do not depend on the number of threads: work is cut by shape alone, and partial sums are combined
/// in a fixed order.
pub struct Cpu {
    threads: rayon::ThreadPool,
    isa: Isa,
    ledger: Arc<Ledger>,
    free: Arc<FreeBlocks<Block>>,
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu").field("threads", &self.threads()).field("isa", &self.isa).finish()
    }
}

impl Cpu {
    /// Starts the worker threads.
    ///
    /// Errors: [`Error::Threads`].
    pub fn new(config: CpuConfig) -> Result<Self, Error> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .thread_name(|index| format!("qft-cpu-{index}"))
            .build()
            .map_err(|e| Error::Threads { threads: config.threads, message: e.to_string() })?;
        Ok(Self {
            threads,
            isa: config.isa,
            ledger: Arc::new(Ledger::default()),
            free: Arc::new(FreeBlocks::default()),
        })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `f` on the worker threads: parallel iterators inside use this device's pool.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.threads.install(f)
    }

    /// Calls `f(task)` for every task, on all threads. The tasks must not depend on each other.
    pub fn for_each<T: Send>(
        &self,
        tasks: impl IndexedParallelIterator<Item = T>,
        f: impl Fn(T) + Send + Sync,
    ) {
        self.threads.install(|| tasks.for_each(f));
    }
}

impl Device for Cpu {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cpu
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn alloc_raw(
        &self,
        owner: Owner,
        name: &'static str,
        dtype: DType,
        len: usize,
    ) -> Result<RawBuffer, Error> {
        let registration = self.ledger.register(owner, name, dtype, len);
        let block: HostBlock = self.free.take(&registration, |bytes| {
            usize::try_from(bytes)
                .ok()
                .and_then(Block::new)
                .ok_or(Error::OutOfMemory { name, bytes })
        })?;
        Ok(RawBuffer::new(Box::new(block), registration, name))
    }

    fn upload_raw(&self, dst: &mut RawBuffer, offset: usize, src: &[u8]) -> Result<(), Error> {
        host_mut("upload", dst)?[offset..offset + src.len()].copy_from_slice(src);
        Ok(())
    }

    fn download_raw(&self, src: &RawBuffer, offset: usize, dst: &mut [u8]) -> Result<(), Error> {
        dst.copy_from_slice(&host("download", src)?[offset..offset + dst.len()]);
        Ok(())
    }

    fn copy_raw(
        &self,
        dst: &mut RawBuffer,
        dst_offset: usize,
        src: &RawBuffer,
        src_offset: usize,
        bytes: usize,
    ) -> Result<(), Error> {
        let src = &host("copy", src)?[src_offset..src_offset + bytes];
        host_mut("copy", dst)?[dst_offset..dst_offset + bytes].copy_from_slice(src);
        Ok(())
    }

    fn zero_raw(&self, dst: &mut RawBuffer, offset: usize, bytes: usize) -> Result<(), Error> {
        host_mut("zero", dst)?[offset..offset + bytes].fill(0);
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }

    fn trim(&self) {
        self.free.clear();
        self.ledger.release_free();
    }
}

fn host<'a>(op: &'static str, raw: &'a RawBuffer) -> Result<&'a [u8], Error> {
    let (name, got) = (raw.name(), raw.storage().kind());
    raw.storage().host().ok_or(Error::WrongDevice { op, name, expected: DeviceKind::Cpu, got })
}

fn host_mut<'a>(op: &'static str, raw: &'a mut RawBuffer) -> Result<&'a mut [u8], Error> {
    let (name, got) = (raw.name(), raw.storage().kind());
    raw.storage_mut().host_mut().ok_or(Error::WrongDevice {
        op,
        name,
        expected: DeviceKind::Cpu,
        got,
    })
}
