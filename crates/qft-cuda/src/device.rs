//! The device: buffers under the ledger, and launches with checked arguments.

use crate::memory::{DeviceBlock, DriverBlock};
use crate::scratch::{HOPPER_SCRATCH_BYTES, SCRATCH_BYTES, Scratch};
use crate::{Arg, Driver, Error, Gpu, Launch, PeerExchange, Peers};
use qft_tensor::buffer::RawBuffer;
use qft_tensor::collectives::{Exchange, Ticket};
use qft_tensor::pool::Pool;
use qft_tensor::{
    Alone, Buffer, Collectives, Communicator, DType, Device, DeviceKind, Element, Host, Ledger,
    Mat, MatMut, Owner, Pieces, Span, Traffic,
};
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

/// The largest grid in y and z.
const MAX_GRID_YZ: u32 = 65_535;
/// The largest grid in x.
const MAX_GRID_X: u32 = i32::MAX as u32;

/// The one compute capability whose instructions include products of warpgroups.
const HOPPER: (u32, u32) = (9, 0);

/// A GPU, or the emulator: memory and kernels behind one [`Driver`].
///
/// Kernels run in the order in which operations are called, on one stream. Results do not depend on the number of
/// multiprocessors: partial results are combined in an order that shapes alone decide.
#[derive(Debug)]
pub struct Cuda {
    driver: Arc<dyn Driver>,
    host: Arc<Host>,
    communicator: Arc<dyn Communicator>,
    peers: Option<Arc<dyn Peers>>,
    ledger: Arc<Ledger>,
    pool: Arc<Pool<DriverBlock, DriverBlock>>,
    scratch: Scratch,
    warpgroup_products: bool,
}

impl Cuda {
    /// A device on `driver`, for which `host` works. On Hopper it tries the products of warpgroups, and goes without if they are wrong.
    ///
    /// Errors: [`Error::OutOfMemory`] if there is no room for the scratch block.
    pub fn new(driver: Arc<dyn Driver>, host: Arc<Host>) -> Result<Self, Error> {
        let make = || Self::without_warpgroup_products(Arc::clone(&driver), Arc::clone(&host));
        let mut device = make()?;
        if device.is_hopper() {
            match make()?.test_warpgroup_products() {
                Ok(()) => device.warpgroup_products = true,
                Err(error) => tracing::warn!(
                    "products of warpgroups are not used: {error}; QFT_NO_WGMMA=1 does not try them"
                ),
            }
        }
        Ok(device)
    }

    /// The same without a trial: Hopper's products of warpgroups are taken for right. For drivers that compute nothing.
    ///
    /// Errors: as [`Cuda::new`].
    pub fn untried(driver: Arc<dyn Driver>, host: Arc<Host>) -> Result<Self, Error> {
        let device = Self::without_warpgroup_products(driver, host)?;
        let warpgroup_products = device.is_hopper();
        Ok(Self { warpgroup_products, ..device })
    }

    pub(crate) fn without_warpgroup_products(
        driver: Arc<dyn Driver>,
        host: Arc<Host>,
    ) -> Result<Self, Error> {
        let is_hopper = driver.properties().compute_capability == HOPPER;
        let bytes = if is_hopper { HOPPER_SCRATCH_BYTES } else { SCRATCH_BYTES };
        let scratch = Scratch::new(&driver, bytes)?;
        let (ledger, pool) = (Arc::default(), Arc::default());
        let communicator = Arc::new(Alone);
        Ok(Self {
            driver,
            host,
            communicator,
            peers: None,
            ledger,
            pool,
            scratch,
            warpgroup_products: false,
        })
    }

    /// The same, in a job of several processes.
    #[must_use]
    pub fn with_communicator(self, communicator: Arc<dyn Communicator>) -> Self {
        Self { communicator, ..self }
    }

    /// The same, that exchanges with the GPUs of the other processes by `peers`.
    #[must_use]
    pub fn with_peers(self, peers: Arc<dyn Peers>) -> Self {
        Self { peers: Some(peers), ..self }
    }

    /// The GPU, if it is one.
    pub fn gpu(&self) -> Option<Arc<Gpu>> {
        let driver: Arc<dyn Any + Send + Sync> = Arc::<dyn Driver>::clone(&self.driver);
        driver.downcast().ok()
    }

    /// Whether the device knows products of warpgroups.
    pub(crate) fn is_hopper(&self) -> bool {
        self.driver.properties().compute_capability == HOPPER
    }

    /// The same device with nothing on its ledger. Blocks that were kept for reuse go back to the driver.
    pub(crate) fn with_empty_ledger(self) -> Self {
        Self { ledger: Arc::default(), pool: Arc::default(), ..self }
    }

    /// Whether the kernels for Hopper may be used.
    pub fn has_warpgroup_products(&self) -> bool {
        self.warpgroup_products
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub(crate) fn scratch_block(&self) -> &Scratch {
        &self.scratch
    }

    /// Starts a kernel; an empty grid starts nothing. `op` names the operation in errors.
    pub(crate) fn launch(
        &self,
        op: &'static str,
        kernel: &'static str,
        launch: Launch,
        args: &[Arg],
    ) -> Result<(), qft_tensor::Error> {
        self.try_launch(kernel, launch, args).map_err(|error| error.during(op))
    }

    fn try_launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error> {
        let signature = self.driver.signature(kernel)?;
        let fits = signature.parameters.iter().copied().eq(args.iter().map(|arg| arg.parameter()));
        if !fits {
            let (expected, got) = (signature.parameters, args.to_vec());
            return Err(Error::Arguments { kernel, expected, got });
        }
        let limit = |what, got: u64, max: u64| {
            if got <= max { Ok(()) } else { Err(Error::Limit { kernel, what, got, max }) }
        };
        limit("the number of threads", launch.threads(), u64::from(signature.max_threads))?;
        let [x, y, z] = launch.grid;
        limit("the grid in x", u64::from(x), u64::from(MAX_GRID_X))?;
        limit("the grid in y or z", u64::from(y.max(z)), u64::from(MAX_GRID_YZ))?;
        let shared = u64::from(launch.shared_bytes) + u64::from(signature.static_shared_bytes);
        limit("shared memory", shared, u64::from(self.driver.properties().max_shared_bytes))?;
        if launch.is_empty() {
            return Ok(());
        }
        self.driver.launch(kernel, launch, args)
    }

    /// Memory of the driver for what has this name.
    fn block(&self, name: &'static str, bytes: u64) -> Result<DriverBlock, qft_tensor::Error> {
        let size = usize::try_from(bytes).map_err(|_| Error::OutOfMemory { bytes });
        size.and_then(|size| DriverBlock::new(&self.driver, size)).map_err(|error| match error {
            Error::OutOfMemory { .. } => qft_tensor::Error::OutOfMemory { name, bytes },
            other => other.during("alloc"),
        })
    }

    /// The address of an untyped buffer, which must be memory of this very device.
    fn address(&self, op: &'static str, raw: &RawBuffer) -> Result<u64, qft_tensor::Error> {
        let block = raw.storage().as_any().downcast_ref::<DeviceBlock>();
        block.and_then(|block| block.address_on(&self.driver)).ok_or_else(|| {
            qft_tensor::Error::WrongDevice {
                op,
                name: raw.name(),
                expected: self.kind(),
                got: raw.storage().kind(),
            }
        })
    }

    /// The address of an untyped buffer that the device is about to write.
    fn written(&self, op: &'static str, raw: &mut RawBuffer) -> Result<u64, qft_tensor::Error> {
        let address = self.address(op, raw)?;
        if let Some(block) = raw.storage_mut().as_any_mut().downcast_mut::<DeviceBlock>() {
            block.written();
        }
        Ok(address)
    }

    /// An upper bound on the elements of a buffer that the host has filled, if it is known.
    pub(crate) fn largest(&self, buffer: &Buffer<u32>) -> Option<u32> {
        let block = buffer.raw().storage().as_any().downcast_ref::<DeviceBlock>();
        block.and_then(DeviceBlock::largest)
    }

    /// A buffer that a kernel reads.
    pub(crate) fn read<T: Element>(
        &self,
        op: &'static str,
        buffer: &Buffer<T>,
    ) -> Result<Arg, qft_tensor::Error> {
        self.address(op, buffer.raw()).map(Arg::Ptr)
    }

    /// A buffer that a kernel writes.
    pub(crate) fn write<T: Element>(
        &self,
        op: &'static str,
        buffer: &mut Buffer<T>,
    ) -> Result<Arg, qft_tensor::Error> {
        self.written(op, buffer.raw_mut()).map(Arg::Ptr)
    }

    /// The first element of a span that a kernel reads.
    pub(crate) fn read_span<T: Element>(
        &self,
        op: &'static str,
        span: Span<'_, T>,
    ) -> Result<Arg, qft_tensor::Error> {
        let start = self.address(op, span.buffer().raw())?;
        Ok(Arg::Ptr(start + (span.start() * T::DTYPE.size_bytes()) as u64))
    }

    /// The first element of a range of a buffer that a kernel writes.
    pub(crate) fn write_span<T: Element>(
        &self,
        op: &'static str,
        buffer: &mut Buffer<T>,
        range: Range<usize>,
    ) -> Result<Arg, qft_tensor::Error> {
        let offset = buffer.span(range)?.start() * T::DTYPE.size_bytes();
        let start = self.written(op, buffer.raw_mut())?;
        Ok(Arg::Ptr(start + offset as u64))
    }

    /// The first element of a matrix that a kernel reads.
    pub(crate) fn read_mat<T: Element>(
        &self,
        op: &'static str,
        mat: Mat<'_, T>,
    ) -> Result<Arg, qft_tensor::Error> {
        let start = self.address(op, mat.buffer().raw())?;
        Ok(Arg::Ptr(start + (mat.start() * T::DTYPE.size_bytes()) as u64))
    }

    /// The first element of a matrix that a kernel writes.
    pub(crate) fn write_mat<T: Element>(
        &self,
        op: &'static str,
        mat: &mut MatMut<'_, T>,
    ) -> Result<Arg, qft_tensor::Error> {
        let offset = mat.start() * T::DTYPE.size_bytes();
        let start = self.written(op, mat.buffer_mut().raw_mut())?;
        Ok(Arg::Ptr(start + offset as u64))
    }
}

impl Device for Cuda {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda(self.driver.properties().ordinal)
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn host(&self) -> Result<&Host, qft_tensor::Error> {
        Ok(&self.host)
    }

    fn communicator(&self) -> &dyn Communicator {
        &*self.communicator
    }

    fn collectives(&self) -> Option<&dyn Collectives> {
        self.peers.as_ref().map(|_| self as &dyn Collectives)
    }

    fn alloc_raw(
        &self,
        owner: Owner,
        name: &'static str,
        dtype: DType,
        len: usize,
    ) -> Result<RawBuffer, qft_tensor::Error> {
        let registration = self.ledger.register(owner, name, dtype, len);
        let block = self.pool.take(&registration, |bytes| self.block(name, bytes))?;
        let block = DeviceBlock::new(block, self.driver.properties().ordinal, dtype, len);
        Ok(RawBuffer::new(Box::new(block), registration, name))
    }

    fn upload_raw(
        &self,
        dst: &mut RawBuffer,
        offset: usize,
        src: &[u8],
    ) -> Result<(), qft_tensor::Error> {
        let start = self.address("upload", dst)? + offset as u64;
        if src.is_empty() {
            return Ok(());
        }
        if let Some(block) = dst.storage_mut().as_any_mut().downcast_mut::<DeviceBlock>() {
            block.uploaded(src);
        }
        self.driver.upload(start, src).map_err(|error| error.during("upload"))
    }

    fn download_raw(
        &self,
        src: &RawBuffer,
        offset: usize,
        dst: &mut [u8],
    ) -> Result<(), qft_tensor::Error> {
        let start = self.address("download", src)? + offset as u64;
        if dst.is_empty() {
            return Ok(());
        }
        self.driver.download(dst, start).map_err(|error| error.during("download"))
    }

    fn copy_raw(
        &self,
        dst: &mut RawBuffer,
        dst_offset: usize,
        src: &RawBuffer,
        src_offset: usize,
        bytes: usize,
    ) -> Result<(), qft_tensor::Error> {
        let to = self.written("copy", dst)? + dst_offset as u64;
        let from = self.address("copy", src)? + src_offset as u64;
        if bytes == 0 {
            return Ok(());
        }
        self.driver.copy(to, from, bytes).map_err(|error| error.during("copy"))
    }

    fn copy_pieces_raw(
        &self,
        dst: &mut RawBuffer,
        to: Pieces,
        src: &RawBuffer,
        from: Pieces,
    ) -> Result<(), qft_tensor::Error> {
        let (dst, src) = (self.written("copy", dst)?, self.address("copy", src)?);
        if from.is_empty() {
            return Ok(());
        }
        self.driver.copy_pieces(dst, to, src, from).map_err(|error| error.during("copy"))
    }

    fn zero_raw(
        &self,
        dst: &mut RawBuffer,
        offset: usize,
        bytes: usize,
    ) -> Result<(), qft_tensor::Error> {
        let start = self.written("zero", dst)? + offset as u64;
        if bytes == 0 {
            return Ok(());
        }
        self.driver.zero(start, bytes).map_err(|error| error.during("zero"))
    }

    fn synchronize(&self) -> Result<(), qft_tensor::Error> {
        self.driver.synchronize().map_err(|error| error.during("synchronize"))
    }

    fn reserve(&self, bytes: u64) -> Result<(), qft_tensor::Error> {
        self.trim();
        self.pool.reserve(&self.ledger, bytes, |bytes| self.block("arena", bytes))
    }

    fn trim(&self) {
        self.pool.clear();
        self.ledger.release_free();
    }
}

impl Cuda {
    /// What connects it with the other GPUs of the job.
    fn peers(&self) -> Result<&dyn Peers, qft_tensor::Error> {
        self.peers.as_deref().ok_or_else(|| self.lost("GPUs are not connected".to_owned()))
    }

    /// The job has come to its end.
    fn lost(&self, message: String) -> qft_tensor::Error {
        let (rank, size) = (self.communicator.rank(), self.communicator.size());
        qft_tensor::Error::Communication { rank, size, message }
    }
}

impl Collectives for Cuda {
    fn start(&self, exchange: Exchange<'_>) -> Result<Ticket, qft_tensor::Error> {
        const OP: &str = "exchange";
        let exchange = match exchange {
            Exchange::Max { values, len } => {
                PeerExchange::Max { values: self.written(OP, values)?, len }
            }
            Exchange::Sum { shares, sums, len } => {
                let shares = self.address(OP, shares)?;
                PeerExchange::Sum { shares, sums: self.written(OP, sums)?, len }
            }
            Exchange::Gather { bytes, parts } => {
                PeerExchange::Gather { bytes: self.written(OP, bytes)?, parts: parts.to_vec() }
            }
        };
        let started = self.peers()?.start(exchange);
        started.map(Ticket).map_err(|error| self.lost(error.to_string()))
    }

    fn wait(&self, Ticket(number): Ticket) -> Result<(), qft_tensor::Error> {
        self.peers()?.wait(number).map_err(|error| self.lost(error.to_string()))
    }

    fn traffic(&self) -> Traffic {
        self.peers.as_ref().map(|peers| peers.traffic()).unwrap_or_default()
    }
}
