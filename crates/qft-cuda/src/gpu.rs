//! The driver of a real GPU, through cudarc: NVIDIA's library is looked for at run time, not when building.

#![allow(unsafe_code)] // Calls of NVIDIA's driver.

mod modules;
mod times;

pub use modules::{KernelReport, ModuleReport};

use crate::error::{driver_error, failed};
use crate::{Arg, Driver, Error, Launch, MemoryInfo, Properties, Signature, probe, ptx};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, result, sys};
use modules::Modules;
use qft_tensor::Pieces;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use times::Times;

/// Compute capability that the kernels need: INT8 tensor-core products of 16 x 8 x 32, asynchronous copies.
const OLDEST_CAPABILITY: (u32, u32) = (8, 0);
/// Pinned memory through which small uploads go without waiting.
const STAGING_BYTES: usize = 4 << 20;
/// Uploads up to this size go through it.
const STAGED_UPLOAD_BYTES: usize = 256 << 10;
/// Set, each launch is waited for: a fault is told by the kernel that made it, and not by a later call.
const WAIT_VARIABLE: &str = "QFT_CUDA_SYNC";
/// The compute capability of B300, whose tensor cores have hardly any INT8.
const BLACKWELL_ULTRA: (u32, u32) = (10, 3);

/// A GPU: one context, one stream.
pub struct Gpu {
    properties: Properties,
    waits: bool,
    reports: Vec<ModuleReport>,
    state: Mutex<State>,
    // Declared last: dropped after everything that lives in the context.
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// What changes while the GPU is used.
struct State {
    modules: Modules,
    staging: Staging,
    /// What kernels take, if that was asked for.
    times: Option<Times>,
}

// SAFETY: handles and pinned memory of a context may be used from any thread to which the context is bound; every use
// binds it first and holds the lock.
unsafe impl Send for State {}

/// Pinned memory, filled from the front; full, it is reused after the stream has caught up.
struct Staging {
    host: *mut u8,
    used: usize,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("properties", &self.properties).finish_non_exhaustive()
    }
}

impl Gpu {
    /// The GPU of that index.
    ///
    /// All kernels are loaded, by several threads: the driver compiles them, or has them in its cache. With `QFT_CUDA_SYNC` in
    /// the environment each launch is waited for; with `QFT_KERNEL_TIMES`, what kernels took is told at the end.
    ///
    /// Errors: those of [`probe::device_count`]; [`Error::NoDevice`]; [`Error::OldDevice`]; [`Error::Driver`].
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        let count = probe::device_count()?;
        if ordinal >= count {
            return Err(Error::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal).map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let attribute = |which: Attribute| -> Result<u32, Error> {
            let value = context.attribute(which).map_err(failed("cuDeviceGetAttribute"))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let name = context.name().map_err(failed("cuDeviceGetName"))?;
        let compute_capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if compute_capability < OLDEST_CAPABILITY {
            return Err(Error::OldDevice {
                name,
                found: compute_capability,
                needed: OLDEST_CAPABILITY,
            });
        }
        let properties = Properties {
            name,
            ordinal,
            compute_capability,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            max_shared_bytes: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
        };
        if compute_capability == BLACKWELL_ULTRA {
            tracing::warn!(
                "{}: its tensor cores have hardly any INT8, so products will be slower than on an RTX 4090",
                properties.name
            );
        }
        let stream = context.new_stream().map_err(failed("cuStreamCreate"))?;
        let mut modules = Modules::new(properties.max_shared_bytes);
        let reports = modules.load_all(&context, properties.compute_capability)?;
        // SAFETY: the context is bound; the memory is freed when this value is dropped.
        let host =
            unsafe { result::malloc_host(STAGING_BYTES, 0) }.map_err(failed("cuMemHostAlloc"))?;
        let staging = Staging { host: host.cast(), used: 0 };
        let state = Mutex::new(State { modules, staging, times: Times::if_asked() });
        let waits = std::env::var_os(WAIT_VARIABLE).is_some();
        Ok(Self { properties, waits, reports, state, stream, context })
    }

    /// What loading its modules took, each with what the driver's compiler said.
    pub fn modules(&self) -> &[ModuleReport] {
        &self.reports
    }

    /// What its kernels take of a multiprocessor, as the driver says.
    ///
    /// Errors: [`Error::Driver`].
    pub fn kernels(&self) -> Result<Vec<KernelReport>, Error> {
        self.bind()?;
        self.state().modules.kernels(self.properties.compute_capability)
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The one on which all work is done.
    pub(crate) fn stream(&self) -> &CudaStream {
        &self.stream
    }

    /// Makes the context current on this thread.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        self.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each field is complete between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, call: &str) -> Result<(), Error> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream.cu_stream()) }.map_err(failed(call))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // What fails here was reported by the call that broke the context.
        let _ = self.bind().and_then(|()| self.wait("cuStreamSynchronize"));
        let mut state = self.state();
        if let Some(times) = state.times.take() {
            times.tell();
        }
        let host = state.staging.host;
        // SAFETY: allocated by `open`, and no copy from it is under way.
        let _ = unsafe { result::free_host(host.cast()) };
    }
}

impl Driver for Gpu {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory_info(&self) -> Result<MemoryInfo, Error> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        Ok(MemoryInfo { free_bytes: free as u64, total_bytes: total as u64 })
    }

    fn alloc(&self, bytes: usize) -> Result<u64, Error> {
        self.bind()?;
        // SAFETY: the context is bound, and memory of any content is asked for.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { bytes: bytes as u64 },
            _ => driver_error("cuMemAlloc", error),
        })
    }

    fn free(&self, address: u64) -> Result<(), Error> {
        self.bind()?;
        self.wait("cuStreamSynchronize")?;
        // SAFETY: the address comes from `alloc`, and nothing on the stream uses it any more.
        unsafe { result::free_sync(address) }.map_err(failed("cuMemFree"))
    }

    fn upload(&self, dst: u64, src: &[u8]) -> Result<(), Error> {
        self.bind()?;
        let stream = self.stream.cu_stream();
        if src.len() > STAGED_UPLOAD_BYTES {
            // SAFETY: `src` outlives the wait below; the device checks its own addresses.
            unsafe { result::memcpy_htod_async(dst, src, stream) }
                .map_err(failed("cuMemcpyHtoD"))?;
            return self.wait("cuMemcpyHtoD");
        }
        let mut state = self.state();
        if state.staging.used + src.len() > STAGING_BYTES {
            self.wait("cuMemcpyHtoD")?;
            state.staging.used = 0;
        }
        let Staging { host, used } = state.staging;
        state.staging.used += src.len();
        // SAFETY: these bytes of the pinned block are in no copy under way, and `used + len` is within it.
        let staged = unsafe { std::slice::from_raw_parts_mut(host.add(used), src.len()) };
        staged.copy_from_slice(src);
        // SAFETY: the staged bytes stay as they are until the stream has been waited for.
        unsafe { result::memcpy_htod_async(dst, &*staged, stream) }.map_err(failed("cuMemcpyHtoD"))
    }

    fn download(&self, dst: &mut [u8], src: u64) -> Result<(), Error> {
        self.bind()?;
        // SAFETY: `dst` outlives the wait below.
        unsafe { result::memcpy_dtoh_async(dst, src, self.stream.cu_stream()) }
            .map_err(failed("cuMemcpyDtoH"))?;
        self.wait("cuMemcpyDtoH")
    }

    fn copy(&self, dst: u64, src: u64, bytes: usize) -> Result<(), Error> {
        self.bind()?;
        // SAFETY: device addresses, which the device checks.
        unsafe { result::memcpy_dtod_async(dst, src, bytes, self.stream.cu_stream()) }
            .map_err(failed("cuMemcpyDtoD"))
    }

    fn copy_pieces(&self, dst: u64, to: Pieces, src: u64, from: Pieces) -> Result<(), Error> {
        self.bind()?;
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: src + from.start as u64,
            srcArray: std::ptr::null_mut(),
            srcPitch: from.stride,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: dst + to.start as u64,
            dstArray: std::ptr::null_mut(),
            dstPitch: to.stride,
            WidthInBytes: from.bytes,
            Height: from.count,
        };
        // SAFETY: device addresses, which the device checks.
        unsafe { sys::cuMemcpy2DAsync_v2(&copy, self.stream.cu_stream()) }
            .result()
            .map_err(failed("cuMemcpy2D"))
    }

    fn zero(&self, dst: u64, bytes: usize) -> Result<(), Error> {
        self.bind()?;
        // SAFETY: a device address, which the device checks.
        unsafe { result::memset_d8_async(dst, 0, bytes, self.stream.cu_stream()) }
            .map_err(failed("cuMemsetD8"))
    }

    fn synchronize(&self) -> Result<(), Error> {
        self.bind()?;
        self.wait("cuStreamSynchronize")
    }

    fn signature(&self, kernel: &str) -> Result<Signature, Error> {
        ptx::entry(kernel).map(|entry| entry.signature.clone())
    }

    fn launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error> {
        self.bind()?;
        let mut state = self.state();
        let State { modules, times, .. } = &mut *state;
        let function = modules.function(kernel)?;
        let stream = self.stream.cu_stream();
        let timed = times.as_mut().map(|times| times.begin(kernel, stream)).transpose()?;
        let mut values: Vec<[u8; 8]> = args.iter().map(|arg| arg.to_bytes()).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|v| v.as_mut_ptr().cast()).collect();
        let size = |[x, y, z]: [u32; 3]| (x, y, z);
        // SAFETY: the caller has compared the arguments with the kernel's parameters; the driver copies them before it
        // returns. Addresses in them are the device's, which faults on those it does not have.
        unsafe {
            result::launch_kernel(
                function,
                size(launch.grid),
                size(launch.block),
                launch.shared_bytes,
                stream,
                &mut pointers,
            )
        }
        .map_err(failed(&format!("cuLaunchKernel {kernel}")))?;
        if let Some((times, timed)) = times.as_mut().zip(timed) {
            times.end(timed, stream)?;
        }
        if self.waits {
            self.wait(kernel)?;
        }
        Ok(())
    }
}
