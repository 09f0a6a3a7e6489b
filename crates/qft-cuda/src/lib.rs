//! The CUDA backend: `qft`'s operations on NVIDIA GPUs, with the kernels embedded as PTX.
//!
//! * [`Cuda`]: a device; it implements the operation traits of the lower crates.
//! * [`Driver`]: what a device needs of its machine. Everything above it also runs on the emulator of the tests.
//! * [`ptx`]: the embedded kernels, and their parameter lists.

pub mod device;
pub mod driver;
pub mod error;
pub mod launch;
mod memory;
mod ops;
pub mod ptx;
mod scratch;

pub use device::Cuda;
pub use driver::{Driver, MemoryInfo, Properties};
pub use error::Error;
pub use launch::{Arg, Launch, Parameter, Signature};
