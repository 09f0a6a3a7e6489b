//! The CUDA backend: `qft`'s operations on NVIDIA GPUs, with the kernels embedded as PTX.
//!
//! * [`Cuda`]: a device; it implements the operation traits of the lower crates.
//! * [`open`]: the GPU of an index, checked with known answers.
//! * [`Nccl`]: exchanges between the GPUs of a job.
//! * [`Driver`]: what a device needs of its machine. Everything above it also runs on the emulator of the tests.
//! * [`ptx`]: the embedded kernels, and their parameter lists.

pub mod device;
pub mod driver;
pub mod error;
pub mod gpu;
pub mod launch;
mod memory;
pub mod nccl;
mod ops;
pub mod peers;
pub mod probe;
pub mod ptx;
mod scratch;
mod self_test;

pub use device::Cuda;
pub use driver::{Driver, MemoryInfo, Properties};
pub use error::Error;
pub use gpu::{Gpu, KernelReport, ModuleReport};
pub use launch::{Arg, Launch, Parameter, Signature};
pub use nccl::Nccl;
pub use peers::{PeerExchange, Peers};

use qft_tensor::Host;
use std::sync::Arc;

/// Set in the environment, it keeps Hopper from its products of warpgroups.
pub const WITHOUT_WARPGROUPS: &str = "QFT_NO_WGMMA";

/// The GPU of that index, after it has given known answers; `host` works for it.
///
/// `QFT_NO_WGMMA` in the environment keeps Hopper from its products of warpgroups, for comparisons.
///
/// Errors: [`Error::NoDriver`], [`Error::OldDriver`], [`Error::NoDevice`] and [`Error::OldDevice`] where there is no GPU to
/// use, [`Error::SelfTest`] where there is one that computes wrongly, [`Error::Driver`] if the driver fails.
pub fn open(ordinal: usize, host: Arc<Host>) -> Result<Cuda, Error> {
    let open = || Ok::<Arc<dyn Driver>, Error>(Arc::new(Gpu::open(ordinal)?));
    let mut device = None;
    let asked = std::env::var_os(WITHOUT_WARPGROUPS).is_some();
    if !asked {
        let tried = Cuda::new(open()?, Arc::clone(&host))?;
        // A kernel that faults takes its context along: go on in a new one, if the driver allows it.
        device = (!tried.is_hopper() || tried.has_warpgroup_products()).then_some(tried);
    }
    let device = match device {
        Some(device) => device,
        None if asked => Cuda::without_warpgroup_products(open()?, host)?,
        // The driver may want another process after a fault.
        None => open()
            .and_then(|driver| Cuda::without_warpgroup_products(driver, host))
            .map_err(|error| Error::AfterFault(Box::new(error)))?,
    };
    device.self_test().map_err(Error::SelfTest)?;
    // The ledger of the device that is handed out begins empty.
    Ok(device.with_empty_ledger())
}
