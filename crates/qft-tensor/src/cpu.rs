//! The CPU backend: memory, threads, and the implementation of every operation of this crate.

mod gemm;
pub mod int8_rows;
mod memory;
mod quantize;
mod region;

use crate::buffer::RawBuffer;
use crate::pool::Pool;
use crate::{
    Alone, Collectives, Communicator, CpuConfig, DType, Device, DeviceKind, Error, Host, Isa,
    Ledger, Owner, Pieces,
};
use memory::{HostBlock, HostPages};
use rayon::prelude::*;
use region::HostRegion;
use std::sync::Arc;

/// The host processor.
///
/// Results do not depend on the number of threads: work is cut by shape alone, and partial sums are combined
/// in a fixed order.
#[derive(Debug)]
pub struct Cpu {
    host: Host,
    communicator: Arc<dyn Communicator>,
    ledger: Arc<Ledger>,
    pool: Arc<Pool<HostPages, HostRegion>>,
}

impl Cpu {
    /// Starts the worker threads.
    ///
    /// Errors: [`Error::Threads`].
    pub fn new(config: CpuConfig) -> Result<Self, Error> {
        Ok(Self {
            host: Host::new(config)?,
            communicator: Arc::new(Alone),
            ledger: Arc::default(),
            pool: Arc::default(),
        })
    }

    /// The same, in a job of several processes.
    #[must_use]
    pub fn with_communicator(self, communicator: Arc<dyn Communicator>) -> Self {
        Self { communicator, ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.host.isa()
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.host.threads()
    }

    /// [`Host::install`].
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.host.install(f)
    }

    /// [`Host::for_each`].
    pub fn for_each<T: Send>(
        &self,
        tasks: impl IndexedParallelIterator<Item = T>,
        f: impl Fn(T) + Send + Sync,
    ) {
        self.host.for_each(tasks, f);
    }
}

impl Device for Cpu {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cpu
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn host(&self) -> Result<&Host, Error> {
        Ok(&self.host)
    }

    fn communicator(&self) -> &dyn Communicator {
        &*self.communicator
    }

    fn collectives(&self) -> Option<&dyn Collectives> {
        // Its memory is that of the host.
        None
    }

    fn alloc_raw(
        &self,
        owner: Owner,
        name: &'static str,
        dtype: DType,
        len: usize,
    ) -> Result<RawBuffer, Error> {
        let registration = self.ledger.register(owner, name, dtype, len);
        let block: HostBlock = self.pool.take(&registration, |bytes| {
            usize::try_from(bytes)
                .ok()
                .and_then(HostPages::new)
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

    fn copy_pieces_raw(
        &self,
        dst: &mut RawBuffer,
        to: Pieces,
        src: &RawBuffer,
        from: Pieces,
    ) -> Result<(), Error> {
        let (dst, src) = (host_mut("copy", dst)?, host("copy", src)?);
        for (to, from) in to.ranges().zip(from.ranges()) {
            dst[to].copy_from_slice(&src[from]);
        }
        Ok(())
    }

    fn zero_raw(&self, dst: &mut RawBuffer, offset: usize, bytes: usize) -> Result<(), Error> {
        host_mut("zero", dst)?[offset..offset + bytes].fill(0);
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.trim();
        self.pool.reserve(&self.ledger, bytes, |bytes| {
            let region = usize::try_from(bytes).ok().and_then(HostRegion::new);
            region.ok_or(Error::OutOfMemory { name: "arena", bytes })
        })
    }

    fn trim(&self) {
        self.pool.clear();
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
