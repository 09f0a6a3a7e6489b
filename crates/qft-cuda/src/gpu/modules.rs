//! The embedded modules, loaded into a context, and their kernels.

use crate::Error;
use crate::error::{driver_error, failed};
use crate::ptx::{self, MODULES};
use cudarc::driver::{CudaContext, result, sys};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;
use sys::CUfunction_attribute as Attribute;

/// Room for what the driver says about PTX.
const LOG_BYTES: usize = 4096;
/// Threads that load modules at the same time, at most.
const LOADERS: usize = 8;

/// What loading a module took.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleReport {
    /// Its name, that of its source.
    pub name: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// What the driver's compiler said.
    pub notes: String,
}

/// What a kernel takes of a multiprocessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelReport {
    /// Its name.
    pub name: &'static str,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of local memory of a thread: what was spilled, and arrays.
    pub local_bytes: u32,
    /// Bytes of shared memory of a block that it always has.
    pub shared_bytes: u32,
    /// Threads that a block can have.
    pub max_threads: u32,
}

/// Modules and functions that are loaded.
pub(super) struct Modules {
    loaded: HashMap<usize, Module>,
    functions: HashMap<&'static str, sys::CUfunction>,
    max_shared_bytes: u32,
}

/// A module's handle.
#[derive(Clone, Copy)]
struct Module(sys::CUmodule);

// SAFETY: a handle of a context may be used from any thread to which the context is bound.
unsafe impl Send for Module {}

/// Whether a device of that compute capability takes a module: those for one architecture, no other does.
fn is_for(text: &str, (major, minor): (u32, u32)) -> bool {
    let target = text.split(".target sm_").nth(1).unwrap_or_default();
    let name = target.split([',', '\n', ' ']).next().unwrap_or_default();
    name.strip_suffix('a').is_none_or(|number| number == format!("{major}{minor}"))
}

impl Modules {
    pub(super) fn new(max_shared_bytes: u32) -> Self {
        Self { loaded: HashMap::new(), functions: HashMap::new(), max_shared_bytes }
    }

    /// Loads all modules for a device of that compute capability, by several threads. One for a single architecture that fails is
    /// left out, and tried again when one of its kernels is used.
    ///
    /// Errors: [`Error::Driver`].
    pub(super) fn load_all(
        &mut self,
        context: &Arc<CudaContext>,
        capability: (u32, u32),
    ) -> Result<Vec<ModuleReport>, Error> {
        let wanted: Vec<usize> =
            (0..MODULES.len()).filter(|&index| is_for(MODULES[index].1, capability)).collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Module, ModuleReport)>, Error> {
            context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
            let mut loaded = Vec::new();
            while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (name, text) = MODULES[index];
                let began = Instant::now();
                match load(index) {
                    Ok((module, notes)) => {
                        let seconds = began.elapsed().as_secs_f64();
                        let report = ModuleReport { name, seconds, notes };
                        loaded.push((index, Module(module), report));
                    }
                    Err(error) if is_for(text, (0, 0)) => return Err(error),
                    Err(error) => tracing::warn!("{name}.ptx is not used: {error}"),
                }
            }
            Ok(loaded)
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(LOADERS);
        let found = thread::scope(|scope| {
            let started: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            started.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        let mut reports = Vec::new();
        for of_thread in found {
            let lost = |_| Error::Driver {
                call: "loading the kernels".to_owned(),
                message: "a thread panicked".to_owned(),
            };
            for (index, module, report) in of_thread.map_err(lost)?? {
                self.loaded.insert(index, module);
                reports.push(report);
            }
        }
        reports.sort_by_key(|report| report.name);
        Ok(reports)
    }

    /// The function of a kernel, allowed all the shared memory that there is. The context is bound.
    ///
    /// Errors: [`Error::UnknownKernel`], [`Error::Driver`].
    pub(super) fn function(&mut self, kernel: &'static str) -> Result<sys::CUfunction, Error> {
        if let Some(function) = self.functions.get(kernel) {
            return Ok(*function);
        }
        let index = ptx::entry(kernel)?.module;
        let module = match self.loaded.get(&index) {
            Some(module) => *module,
            None => {
                let module = Module(load(index)?.0);
                self.loaded.insert(index, module);
                module
            }
        };
        let name =
            CString::new(kernel).map_err(|_| Error::UnknownKernel { kernel: kernel.to_owned() })?;
        // SAFETY: the module is loaded and stays so until the context goes.
        let function = unsafe { result::module::get_function(module.0, name) }
            .map_err(failed("cuModuleGetFunction"))?;
        // Without asking, a block has 48 KiB, of which its static arrays are a part.
        let fixed = attribute(function, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let dynamic = i32::try_from(self.max_shared_bytes.saturating_sub(fixed));
        let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the handle is of a loaded module.
        unsafe {
            result::function::set_function_attribute(function, which, dynamic.unwrap_or(i32::MAX))
        }
        .map_err(failed("cuFuncSetAttribute"))?;
        self.functions.insert(kernel, function);
        Ok(function)
    }

    /// What all kernels take that a device of that compute capability has, by name. The context is bound.
    pub(super) fn kernels(&mut self, capability: (u32, u32)) -> Result<Vec<KernelReport>, Error> {
        let all =
            ptx::entries().iter().filter(|(_, entry)| is_for(MODULES[entry.module].1, capability));
        let mut names: Vec<&'static str> = all.map(|(name, _)| *name).collect();
        names.sort_unstable();
        let report = |name| {
            let function = self.function(name)?;
            let get = |which| attribute(function, which);
            Ok(KernelReport {
                name,
                registers: get(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
                local_bytes: get(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
                shared_bytes: get(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
                max_threads: get(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            })
        };
        names.into_iter().map(report).collect()
    }
}

fn attribute(function: sys::CUfunction, which: Attribute) -> Result<u32, Error> {
    // SAFETY: the handle is of a loaded module.
    let value = unsafe { result::function::get_function_attribute(function, which) }
        .map_err(failed("cuFuncGetAttribute"))?;
    Ok(u32::try_from(value).unwrap_or(0))
}

/// Loads an embedded module into the current context: the driver compiles its PTX, or has it in its cache. What its compiler
/// says of products that wait for each other becomes a warning; the pinned compiler has nothing to say.
fn load(index: usize) -> Result<(sys::CUmodule, String), Error> {
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
    Ok((module, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_architecture_alone_has_is_for_it() {
        let all = ".version 7.8\n.target sm_80\n.address_size 64\n";
        let hopper = ".version 8.0\n.target sm_90a\n.address_size 64\n";
        assert!([(8, 0), (9, 0), (12, 0)].iter().all(|&capability| is_for(all, capability)));
        assert_eq!(
            [(8, 9), (9, 0), (10, 0)].map(|capability| is_for(hopper, capability)),
            [false, true, false]
        );
        let only: Vec<_> = MODULES.iter().filter(|(_, text)| !is_for(text, (8, 0))).collect();
        assert_eq!(only.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["gemm_i8_hopper"]);
    }
}
