//! The error type of this crate.

use crate::launch::{Arg, Parameter};
use cudarc::driver::{DriverError, sys};
use std::ffi::CStr;

/// What can go wrong between the device and its driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No driver library.
    #[error("no NVIDIA driver is installed (libcuda was not found)")]
    NoDriver,
    /// What was found is not a driver.
    #[error(
        "the libcuda that was found is the stub of a toolkit, for linking alone; take its folder (`stubs`) out of LD_LIBRARY_PATH"
    )]
    StubDriver,
    /// The device cannot be opened again after a kernel has failed.
    #[error(
        "{0}, after products of warpgroups have failed; set QFT_NO_WGMMA=1 in the environment, and start again without them"
    )]
    AfterFault(#[source] Box<Error>),
    /// The driver is too old for the kernels.
    #[error("the NVIDIA driver supports CUDA {found}, qft needs {needed}; update the driver")]
    OldDriver {
        /// What it supports.
        found: String,
        /// What the kernels need.
        needed: String,
    },
    /// No GPU of that index.
    #[error("no GPU cuda:{ordinal}: this machine has {count}")]
    NoDevice {
        /// What was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The GPU is too old for the kernels.
    #[error("{name} has compute capability {}.{}, qft needs {}.{} (Ampere) or newer", found.0, found.1, needed.0, needed.1)]
    OldDevice {
        /// Its name.
        name: String,
        /// Its compute capability.
        found: (u32, u32),
        /// What the kernels need.
        needed: (u32, u32),
    },
    /// The GPU failed the test at its opening.
    #[error("the GPU cannot be used; choose another device")]
    SelfTest(#[source] qft_tensor::Error),
    /// A known answer was not given.
    #[error("{device} computes {what} wrongly")]
    WrongAnswer {
        /// The device.
        device: String,
        /// Which test.
        what: &'static str,
    },
    /// The driver refused a call, or a kernel failed.
    #[error("{call}: {message}")]
    Driver {
        /// The driver's function, or the kernel.
        call: String,
        /// What the driver says.
        message: String,
    },
    /// No library of NCCL that can be used.
    #[error("no NCCL: {tried}")]
    NoNccl {
        /// What the loader says.
        tried: String,
    },
    /// GPUs could not exchange something.
    #[error("{call}: {message}")]
    Nccl {
        /// The function of NCCL, or what was tried.
        call: String,
        /// What NCCL says, or what is wrong.
        message: String,
    },
    /// The device has no memory left.
    #[error("out of device memory: {bytes} bytes were requested")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// No kernel of that name.
    #[error("no kernel named {kernel}; run `cargo xtask kernels` after adding one")]
    UnknownKernel {
        /// The name.
        kernel: String,
    },
    /// A launch passes other arguments than the kernel takes.
    #[error("{kernel}: takes {expected:?}, got {got:?}")]
    Arguments {
        /// The kernel.
        kernel: &'static str,
        /// Its parameters.
        expected: Vec<Parameter>,
        /// The arguments of the launch.
        got: Vec<Arg>,
    },
    /// A launch is outside of what the kernel or the device allows.
    #[error("{kernel}: {what} is {got}, expected at most {max}")]
    Limit {
        /// The kernel.
        kernel: &'static str,
        /// Which size.
        what: &'static str,
        /// What was asked for.
        got: u64,
        /// The limit.
        max: u64,
    },
}

impl Error {
    /// As an error of the operation `op`.
    pub(crate) fn during(self, op: &'static str) -> qft_tensor::Error {
        qft_tensor::Error::DeviceFailure { op, message: self.to_string() }
    }
}

/// A failure of `call`, in the driver's words.
pub(crate) fn driver_error(call: &str, error: DriverError) -> Error {
    let text = |found: Result<&CStr, DriverError>| {
        found.map_or_else(|_| format!("{:?}", error.0), |text| text.to_string_lossy().into_owned())
    };
    if error.0 == sys::CUresult::CUDA_ERROR_STUB_LIBRARY {
        return Error::StubDriver;
    }
    let message = format!("{} ({})", text(error.error_string()), text(error.error_name()));
    Error::Driver { call: call.to_owned(), message }
}

/// For `map_err`.
pub(crate) fn failed(call: &str) -> impl FnOnce(DriverError) -> Error {
    move |error| driver_error(call, error)
}
