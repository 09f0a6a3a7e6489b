//! The processor that works for a device: its threads and its instruction set.

use crate::{Error, Isa};
use rayon::prelude::*;
use std::fmt;

/// How a [`Host`], and with it a [`crate::Cpu`], is set up.
#[derive(Debug, Clone, Copy)]
pub struct CpuConfig {
    /// Worker threads; 0 means as many as the machine has.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
}

impl CpuConfig {
    /// All threads, and the instruction set of [`Isa::detect`].
    ///
    /// Errors: [`Error::UnsupportedIsa`].
    pub fn detect() -> Result<Self, Error> {
        Ok(Self { threads: 0, isa: Isa::detect()? })
    }
}

/// Worker threads, and the instruction set that they use: all of a [`crate::Cpu`], and what stands beside a GPU to
/// prepare what it gets.
pub struct Host {
    threads: rayon::ThreadPool,
    isa: Isa,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("threads", &self.threads()).field("isa", &self.isa).finish()
    }
}

impl Host {
    /// Starts the worker threads.
    ///
    /// Errors: [`Error::Threads`].
    pub fn new(config: CpuConfig) -> Result<Self, Error> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .thread_name(|index| format!("qft-cpu-{index}"))
            .build()
            .map_err(|e| Error::Threads { threads: config.threads, message: e.to_string() })?;
        Ok(Self { threads, isa: config.isa })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `f` on the worker threads: parallel iterators inside use these.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.threads.install(f)
    }

    /// Calls `f(task)` for every task, on all threads. The tasks must not depend on each other.
    pub fn for_each<T: Send>(
        &self,
        tasks: impl IndexedParallelIterator<Item = T>,
        f: impl Fn(T) + Send + Sync,
    ) {
        self.threads.install(|| tasks.for_each(f));
    }
}
