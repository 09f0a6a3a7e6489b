//! What is particular about a machine with a GPU.

use super::{Job, products};
use crate::TrainOps;
use crate::error::{Context, Result, ensure};
use qft_cuda::nccl::{Calls, ID_BYTES};
use qft_cuda::{Cuda, Nccl};
use qft_tensor::communicator::bytes_of_first;
use qft_tensor::{CpuConfig, Host, Orientation};
use std::sync::Arc;

/// What the driver takes for kernels as they are first used.
pub(super) const KERNEL_BYTES: u64 = 64 << 20;

/// Opens a GPU, and the threads that work for it.
///
/// Where the trial of a kernel has taken the GPU away from this process, a program of one process starts again without that
/// kernel: nothing has been written yet.
///
/// Errors: there is no driver, no such GPU, one that is too old, or one that computes wrongly.
pub(super) fn open(index: usize, host: CpuConfig, job: &Job) -> Result<Cuda> {
    let opened = qft_cuda::open(index, Arc::new(Host::new(host)?));
    #[cfg(unix)]
    if let Err(error @ qft_cuda::Error::AfterFault(_)) = &opened
        && job.is_alone()
        && let Ok(mut again) = again_without_warpgroups()
    {
        tracing::warn!("{error}; starting again so");
        let failed = std::os::unix::process::CommandExt::exec(&mut again);
        tracing::warn!("cannot start again: {failed}");
    }
    #[cfg(not(unix))]
    let _ = job;
    opened.with_context(|| format!("--device cuda:{index} (--device cpu needs no GPU)"))
}

/// This program as it was called, to go without products of warpgroups.
#[cfg(unix)]
fn again_without_warpgroups() -> std::io::Result<std::process::Command> {
    let mut again = std::process::Command::new(std::env::current_exe()?);
    let mut words = std::env::args_os();
    if let Some(name) = words.next() {
        std::os::unix::process::CommandExt::arg0(&mut again, name);
    }
    again.args(words).env(qft_cuda::WITHOUT_WARPGROUPS, "1");
    Ok(again)
}

/// Set, GPUs of a job exchange by way of their hosts.
const WITHOUT_NCCL: &str = "QFT_NO_NCCL";

/// Connects the GPUs of a job by NCCL, if all processes have it; else they exchange by way of their hosts.
///
/// Errors: they cannot be connected, or exchange wrongly.
pub(super) fn connect(gpu: Cuda, job: &Job) -> Result<Cuda> {
    if job.is_alone() {
        return Ok(gpu);
    }
    let unwanted = std::env::var_os(WITHOUT_NCCL).is_some();
    let calls = if unwanted { None } else { Some(Calls::load()) };
    let (calls, why) = match calls {
        Some(Ok(calls)) => (Some(calls), "another process has no NCCL".to_owned()),
        Some(Err(error)) => (None, error.to_string()),
        None => (None, format!("{WITHOUT_NCCL} is set")),
    };
    let missing = job.any(calls.is_none())?;
    let (Some(calls), false) = (calls, missing) else {
        tracing::warn!("GPUs exchange by way of the hosts' memory, which is slower: {why}");
        return Ok(gpu);
    };
    let about = calls.about();
    let what = || {
        format!(
            "the GPUs of the job cannot be connected by {about} ({WITHOUT_NCCL}=1 goes by way of the hosts)"
        )
    };
    let id = if job.leads() { calls.unique_id() } else { Ok([0; ID_BYTES]) };
    let failed = job.any(id.is_err())?;
    let mut id = id.with_context(what)?;
    ensure!(!failed, "{}: the first process has no identity for them", what());
    bytes_of_first(&*job.processes(), &mut id)?;
    let Some(device) = gpu.gpu() else { return Ok(gpu) };
    let place = (id, job.processes().rank(), job.size());
    let nccl = Nccl::join(calls, device, place, job.deadline()).with_context(what)?;
    tracing::info!("GPUs exchange by {about}");
    Ok(gpu.with_peers(Arc::new(nccl)))
}

/// The rate of a product that keeps every part of a GPU busy, in 10⁹ operations per second.
pub(super) fn product_gops(ops: &dyn TrainOps) -> Result<f64> {
    const SIDE: usize = 4096;
    let seconds = products::seconds(ops, Orientation::Nt, (SIDE, SIDE, SIDE), 5)?;
    Ok((2 * SIDE * SIDE * SIDE) as f64 * 1e-9 / seconds)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_starts_again_with_one_variable_more() {
        let again = again_without_warpgroups().unwrap();
        assert_eq!(again.get_program(), std::env::current_exe().unwrap());
        assert!(again.get_args().eq(std::env::args_os().skip(1)));
        let variables: Vec<_> = again.get_envs().collect();
        assert_eq!(variables, [(qft_cuda::WITHOUT_WARPGROUPS.as_ref(), Some("1".as_ref()))]);
    }
}
