//! The error type of this crate.

use crate::launch::{Arg, Parameter};

/// What can go wrong between the device and its driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver refused a call, or a kernel failed.
    #[error("{call}: {message}")]
    Driver {
        /// The driver's function, or the kernel.
        call: String,
        /// What the driver says.
        message: String,
    },
    /// The device has no memory left.
    #[error("out of device memory: {bytes} bytes")]
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
    #[error("{kernel}: {what} is {got}, at most {max} are possible")]
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
