//! What is particular about a machine with a GPU.

use super::products;
use crate::TrainOps;
use crate::error::{Context, Result};
use qft_cuda::Cuda;
use qft_tensor::{CpuConfig, Host, Orientation};
use std::sync::Arc;

/// What the driver takes for kernels as they are first used.
pub(super) const KERNEL_BYTES: u64 = 64 << 20;

/// Opens a GPU, and the threads that work for it.
///
/// Errors: there is no driver, no such GPU, one that is too old, or one that computes wrongly.
pub(super) fn open(index: usize, host: CpuConfig) -> Result<Cuda> {
    qft_cuda::open(index, Arc::new(Host::new(host)?))
        .with_context(|| format!("--device cuda:{index} (--device cpu needs no GPU)"))
}

/// The rate of a product that keeps every part of a GPU busy, in 10⁹ operations per second.
pub(super) fn product_gops(ops: &dyn TrainOps) -> Result<f64> {
    const SIDE: usize = 4096;
    let seconds = products::seconds(ops, Orientation::Nt, (SIDE, SIDE, SIDE), 5)?;
    Ok((2 * SIDE * SIDE * SIDE) as f64 * 1e-9 / seconds)
}
