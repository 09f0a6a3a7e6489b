//! The driver of a real GPU, through cudarc: NVIDIA's library is looked for at run time, not when building.

#![allow(unsafe_code)] // Calls of NVIDIA's driver.

use crate::error::{driver_error, failed};
use crate::ptx::{self, MODULES};
use crate::{Arg, Driver, Error, Launch, MemoryInfo, Properties, Signature, probe};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, result, sys};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Compute capability that the kernels need: INT8 tensor-core products of 16 x 8 x 32, asynchronous copies.
const OLDEST_CAPABILITY: (u32, u32) = (8, 0);
/// Pinned memory through which small uploads go without waiting.
const STAGING_BYTES: usize = 4 << 20;
/// Uploads up to this size go through it.
const STAGED_UPLOAD_BYTES: usize = 256 << 10;
/// Room for what the driver says about PTX that it does not take.
const LOG_BYTES: usize = 4096;

/// A GPU: one context, one stream.
pub struct Gpu {
    properties: Properties,
    state: Mutex<State>,
    // Declared last: dropped after everything that lives in the context.
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// What changes while the GPU is used.
struct State {
    modules: HashMap<usize, sys::CUmodule>,
    functions: HashMap<&'static str, sys::CUfunction>,
    staging: Staging,
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
        let stream = context.new_stream().map_err(failed("cuStreamCreate"))?;
        // SAFETY: the context is bound; the memory is freed when this value is dropped.
        let host =
            unsafe { result::malloc_host(STAGING_BYTES, 0) }.map_err(failed("cuMemHostAlloc"))?;
        let staging = Staging { host: host.cast(), used: 0 };
        let state = State { modules: HashMap::new(), functions: HashMap::new(), staging };
        Ok(Self { properties, state: Mutex::new(state), stream, context })
    }

    /// Makes the context current on this thread.
    fn bind(&self) -> Result<(), Error> {
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

    /// The function of a kernel, whose module is loaded when it is first used, allowed all the shared memory that there is.
    fn function(&self, state: &mut State, kernel: &'static str) -> Result<sys::CUfunction, Error> {
        if let Some(function) = state.functions.get(kernel) {
            return Ok(*function);
        }
        let entry = ptx::entry(kernel)?;
        let module = match state.modules.get(&entry.module) {
            Some(loaded) => *loaded,
            None => {
                let loaded = load(entry.module)?;
                state.modules.insert(entry.module, loaded);
                loaded
            }
        };
        let name =
            CString::new(kernel).map_err(|_| Error::UnknownKernel { kernel: kernel.to_owned() })?;
        // SAFETY: the module is loaded and stays so until the context goes.
        let function = unsafe { result::module::get_function(module, name) }
            .map_err(failed("cuModuleGetFunction"))?;
        use sys::CUfunction_attribute as Which;
        let get = |which| {
            // SAFETY: the handle is of a loaded module.
            unsafe { result::function::get_function_attribute(function, which) }
                .map_err(failed("cuFuncGetAttribute"))
        };
        // Without asking, a block has 48 KiB, of which its static arrays are a part.
        let fixed = get(Which::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let dynamic = i32::try_from(self.properties.max_shared_bytes).unwrap_or(i32::MAX) - fixed;
        let which = Which::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the handle is of a loaded module.
        unsafe { result::function::set_function_attribute(function, which, dynamic) }
            .map_err(failed("cuFuncSetAttribute"))?;
        let (registers, local) = (
            get(Which::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            get(Which::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
        );
        tracing::debug!("{kernel}: {registers} registers, {local} bytes of local memory a thread");
        state.functions.insert(kernel, function);
        Ok(function)
    }
}

/// Loads an embedded module into the current context: the driver compiles its PTX, or has it in its cache. What its compiler
/// says of products that wait for each other becomes a warning; the pinned compiler has nothing to say.
fn load(index: usize) -> Result<sys::CUmodule, Error> {
    let (name, text) = MODULES[index];
    let failure = |message: String| Error::Driver { call: format!("loading {name}.ptx"), message };
    let image = CString::new(text).map_err(|error| failure(error.to_string()))?;
    let (mut log, mut notes) = (vec![0u8; LOG_BYTES], vec![0u8; LOG_BYTES]);
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        sys::CUjit_option::CU_JIT_INFO_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values = [
        log.as_mut_ptr().cast::<c_void>(),
        LOG_BYTES as *mut c_void,
        notes.as_mut_ptr().cast::<c_void>(),
        LOG_BYTES as *mut c_void,
    ];
    let mut module = std::ptr::null_mut();
    // SAFETY: the image ends with a zero; the logs have the sizes that are given; all outlive the call.
    let done = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    let said = |log: &[u8]| {
        let text = CStr::from_bytes_until_nul(log).map(|text| text.to_string_lossy().into_owned());
        text.unwrap_or_default()
    };
    done.result().map_err(|error| match driver_error("cuModuleLoadDataEx", error) {
        Error::Driver { message, .. } => failure(format!("{message} {}", said(&log))),
        other => other,
    })?;
    let notes = said(&notes);
    if notes.contains("serialized") {
        tracing::warn!("{name}.ptx will be slow with this driver: {notes}");
    }
    Ok(module)
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // What fails here was reported by the call that broke the context.
        let _ = self.bind().and_then(|()| self.wait("cuStreamSynchronize"));
        let host = self.state().staging.host;
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
        let function = self.function(&mut state, kernel)?;
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
                self.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(failed(&format!("cuLaunchKernel {kernel}")))
    }
}
