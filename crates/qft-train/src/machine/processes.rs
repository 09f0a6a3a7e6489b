//! The processes that a launcher started together: `mpirun`, `mpiexec`, `srun`.

use super::Job;
use crate::error::{Context, Result};
use crate::options::job::JobOptions;
use std::sync::Arc;

/// What an error is about.
#[cfg(unix)]
const NOT_CONNECTED: &str = "the processes of the job cannot be connected";

/// What connects this process with those of its job; nothing where it is alone.
#[derive(Debug)]
pub struct Connection {
    #[cfg(unix)]
    mpi: Option<Arc<qft_mpi::Mpi>>,
}

impl Connection {
    /// Connects the processes that a launcher started; a process alone loads nothing.
    ///
    /// Errors: there is no library of MPI that fits the launcher; a process does not come. [`leave`](Self::leave) then.
    #[cfg(unix)]
    pub fn open(options: JobOptions) -> Result<Self> {
        let Some(launch) = qft_mpi::Launch::detect().context(NOT_CONNECTED)? else {
            return Ok(Self { mpi: None });
        };
        let deadlines = qft_mpi::Deadlines::of(options.timeout);
        let mpi = qft_mpi::Mpi::open(&launch, deadlines).context(NOT_CONNECTED)?;
        tracing::info!("{}, on {}", mpi.library(), mpi.host());
        Ok(Self { mpi: Some(Arc::new(mpi)) })
    }

    /// Nothing is connected on this system.
    #[cfg(not(unix))]
    pub fn open(_: JobOptions) -> Result<Self> {
        Ok(Self {})
    }

    /// Ends this process at once with code 1: after an error of [`open`](Self::open), a usual end might wait for others.
    pub fn leave() -> ! {
        #[cfg(unix)]
        qft_mpi::Mpi::leave();
        #[cfg(not(unix))]
        std::process::exit(1)
    }

    /// The job.
    pub fn job(&self) -> Job {
        #[cfg(unix)]
        if let Some(mpi) = &self.mpi {
            let mpi: Arc<qft_mpi::Mpi> = Arc::clone(mpi);
            return Job::of(mpi);
        }
        Job::alone()
    }

    /// The good end, which waits for the other processes. Everything that uses the job must be gone. If one does not come to
    /// its end, all processes are ended.
    pub fn finish(self) {
        #[cfg(unix)]
        if let Some(mpi) = self.mpi
            && let Some(mpi) = Arc::into_inner(mpi)
        {
            mpi.finish();
        }
    }
}
