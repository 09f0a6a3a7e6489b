//! The machine that a command computes on: its device, its free memory, its INT8 rate.

#[cfg(feature = "cuda")]
mod cuda;
pub mod job;
pub mod memory;
pub mod processes;
pub mod products;
pub mod profile;
pub mod rss;
pub mod signals;

use crate::TrainOps;
use crate::error::Result;
use crate::options::{DeviceChoice, MachineOptions, Size};
pub use job::Job;
use memory::FreeMemory;
use profile::{Profiled, StepClock};
use qft_tensor::simd::{gemm_i8, peak};
use qft_tensor::{Cpu, CpuConfig, Isa};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Instant;

/// A device, and what is known of the machine around it.
#[derive(Debug)]
pub struct Machine {
    /// The device.
    pub ops: Arc<dyn TrainOps>,
    kind: Kind,
    memory_limit: Option<Size>,
}

#[derive(Debug)]
enum Kind {
    Cpu {
        isa: Isa,
        threads: usize,
        /// Processes of the job on this machine, which share its memory.
        processes: usize,
    },
    #[cfg(feature = "cuda")]
    Cuda(Arc<qft_cuda::Cuda>),
}

impl Machine {
    /// Opens the device that was asked for.
    ///
    /// Errors: there is no such device here, or it cannot be used.
    pub fn open(options: MachineOptions) -> Result<Self> {
        Self::open_in(&Job::alone(), options)
    }

    /// The same, in a job of several processes: those on one machine share its cores, unless they were
    /// bound to some, and take its GPUs one after the other, from the one that was asked for on.
    ///
    /// Errors: as [`Machine::open`]; a process that does not answer.
    pub fn open_in(job: &Job, options: MachineOptions) -> Result<Self> {
        let (place, processes) = if job.is_alone() { (0, 1) } else { job.on_this_machine()? };
        let threads = match options.threads {
            Some(threads) => threads,
            None if job.is_alone() => 0,
            None => own_threads(processes),
        };
        let host = CpuConfig { threads, ..CpuConfig::detect()? };
        let memory_limit = options.memory_limit;
        match options.device {
            DeviceChoice::Cpu => {
                let cpu = Cpu::new(host)?.with_communicator(job.processes());
                let kind = Kind::Cpu { isa: cpu.isa(), threads: cpu.threads(), processes };
                Ok(Self { ops: Arc::new(cpu), kind, memory_limit })
            }
            DeviceChoice::Cuda(index) => Self::open_cuda(job, index + place, host, memory_limit),
        }
    }

    #[cfg(feature = "cuda")]
    fn open_cuda(
        job: &Job,
        index: usize,
        host: CpuConfig,
        memory_limit: Option<Size>,
    ) -> Result<Self> {
        let gpu = cuda::open(index, host, job)?.with_communicator(job.processes());
        let gpu = Arc::new(cuda::connect(gpu, job)?);
        let ops = Arc::clone(&gpu) as Arc<dyn TrainOps>;
        Ok(Self { ops, kind: Kind::Cuda(gpu), memory_limit })
    }

    #[cfg(not(feature = "cuda"))]
    fn open_cuda(_: &Job, index: usize, _: CpuConfig, _: Option<Size>) -> Result<Self> {
        crate::error::bail!(
            "--device cuda:{index}: this program was built without the feature `cuda`; use --device cpu"
        )
    }

    /// Bytes of memory that this process may take: as many as its options allow, or else its share of what the device can
    /// still give out, if the system says.
    pub fn free_bytes(&self) -> Option<u64> {
        if let Some(Size(bytes)) = self.memory_limit {
            return Some(bytes);
        }
        match &self.kind {
            Kind::Cpu { processes, .. } => Some(FreeMemory::now()?.bytes / *processes as u64),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => Some(gpu.driver().memory_info().ok()?.free_bytes),
        }
    }

    /// Whether it computes on the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self.kind, Kind::Cpu { .. })
    }

    /// What [`Machine::free_bytes`] ends at, for people.
    pub fn memory_bound(&self) -> String {
        match &self.kind {
            _ if self.memory_limit.is_some() => "--memory-limit".into(),
            Kind::Cpu { processes, .. } => match FreeMemory::now() {
                Some(free) if *processes > 1 => {
                    format!("a share of {processes} processes in {}", free.bound_by)
                }
                Some(free) => free.bound_by.to_string(),
                None => "the machine does not say how much is free".into(),
            },
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => "memory of the GPU".into(),
        }
    }

    /// Bytes that a run takes beyond those of its ledger: code, stacks, file buffers, and what products pack their
    /// operands into.
    pub fn overhead_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Cpu { threads, .. } => (32 << 20) + gemm_i8::max_scratch_bytes(*threads) as u64,
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => cuda::KERNEL_BYTES,
        }
    }

    /// The INT8 rate in 10⁹ operations per second, measured now: on a CPU that of the multiply instruction on
    /// registers alone, times the threads; on a GPU that of a large product. Absent where there is none.
    pub fn int8_gops(&self) -> Option<f64> {
        match &self.kind {
            Kind::Cpu { isa, threads, .. } => Some(register_gops(*isa)? * *threads as f64),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => cuda::product_gops(&**gpu).ok(),
        }
    }

    /// The device, with a clock around it if `profile`.
    pub fn watched(&self, profile: bool) -> (Arc<dyn TrainOps>, Option<StepClock>) {
        if !profile {
            return (Arc::clone(&self.ops), None);
        }
        let device = Arc::new(Profiled::new(Arc::clone(&self.ops)));
        let clock = StepClock::new(Arc::clone(&device), self.int8_gops());
        (device, Some(clock))
    }

    /// What computes, for reports.
    pub fn description(&self) -> String {
        match &self.kind {
            Kind::Cpu { isa, threads, .. } => format!("{threads} threads, {isa}"),
            #[cfg(feature = "cuda")]
            Kind::Cuda(gpu) => gpu.driver().properties().name.clone(),
        }
    }
}

/// The threads of one of `processes` on this machine: its share of all cores, or those that it was bound to.
fn own_threads(processes: usize) -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, NonZero::get);
    share_of_cores(allowed, online_cores().unwrap_or(allowed), processes)
}

/// Of `allowed` ones; if these are all `cores` there are, others have them as well.
fn share_of_cores(allowed: usize, cores: usize, processes: usize) -> usize {
    if allowed < cores { allowed } else { (allowed / processes.max(1)).max(1) }
}

/// Cores of this machine that are switched on, if it says.
fn online_cores() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    Some(text.lines().filter(|line| line.starts_with("processor")).count())
        .filter(|&cores| cores > 0)
}

/// The INT8 rate of one thread; the best of a few tries.
fn register_gops(isa: Isa) -> Option<f64> {
    const ROUNDS: u32 = 1 << 20;
    (0..5)
        .filter_map(|_| {
            let start = Instant::now();
            let operations = peak::int8_operations(isa, ROUNDS)?;
            Some(operations as f64 * 1e-9 / start.elapsed().as_secs_f64())
        })
        .reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_share_the_cores_that_they_were_not_bound_to() {
        for (allowed, cores, processes, threads) in
            [(8, 8, 2, 4), (8, 8, 3, 2), (2, 8, 4, 2), (1, 1, 4, 1), (8, 8, 1, 8)]
        {
            assert_eq!(share_of_cores(allowed, cores, processes), threads);
        }
    }
}
