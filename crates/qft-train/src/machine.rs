//! The machine that a command computes on: its device, its free memory, its INT8 rate.

use crate::options::MachineOptions;
use crate::options::value::DeviceChoice;
use crate::profile::{Profiled, StepClock};
use crate::{TrainOps, rss};
use anyhow::{Result, bail};
use qft_tensor::simd::{gemm_i8, peak};
use qft_tensor::{Cpu, CpuConfig, Isa};
use std::sync::Arc;
use std::time::Instant;

/// A device, and what is known of the machine around it.
#[derive(Debug)]
pub struct Machine {
    /// The device.
    pub ops: Arc<dyn TrainOps>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Cpu { isa: Isa, threads: usize },
}

impl Machine {
    /// Opens the device that was asked for.
    ///
    /// Errors: there is no such device here, or it cannot be used.
    pub fn open(options: MachineOptions) -> Result<Self> {
        match options.device {
            DeviceChoice::Cpu => {
                let threads = options.threads.unwrap_or(0);
                let cpu = Cpu::new(CpuConfig { threads, ..CpuConfig::detect()? })?;
                let kind = Kind::Cpu { isa: cpu.isa(), threads: cpu.threads() };
                Ok(Self { ops: Arc::new(cpu), kind })
            }
            DeviceChoice::Cuda(_) => bail!(
                "--device {}: this program runs on CPUs only; use --device cpu",
                options.device
            ),
        }
    }

    /// Bytes of memory that the device can still give out, if the system says.
    pub fn available(&self) -> Option<u64> {
        match self.kind {
            Kind::Cpu { .. } => rss::available(),
        }
    }

    /// Bytes that a run takes beyond those of its ledger: code, stacks, file buffers, and what products pack their
    /// operands into.
    pub fn overhead_bytes(&self) -> u64 {
        match self.kind {
            Kind::Cpu { threads, .. } => (32 << 20) + gemm_i8::max_scratch_bytes(threads) as u64,
        }
    }

    /// The INT8 rate in 10⁹ operations per second, measured now: on a CPU that of the multiply instruction on
    /// registers alone, times the threads. Absent where there is none.
    pub fn int8_gops(&self) -> Option<f64> {
        match self.kind {
            Kind::Cpu { isa, threads } => Some(register_gops(isa)? * threads as f64),
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
        match self.kind {
            Kind::Cpu { isa, threads } => format!("{threads} threads, {isa}"),
        }
    }
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
