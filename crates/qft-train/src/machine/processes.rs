//! The processes of a job: those that a launcher started together (`mpirun`, `mpiexec`, `srun`, `torchrun`), or that this one
//! starts.

use super::Job;
use crate::error::{Context, ErrorKind, OfKind, Result, ensure};
use crate::options::job::JobOptions;
use std::sync::Arc;
#[cfg(unix)]
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// What an error is about.
#[cfg(unix)]
const NOT_CONNECTED: &str = "the processes of the job cannot be connected";

/// Whether `asked` processes can be those that were `started`.
fn check(asked: usize, started: Option<usize>) -> Result<()> {
    ensure!(
        asked == 1 || started.is_none_or(|started| asked == started),
        "--processes: {asked} are asked for, and {} were started; leave the option out",
        started.unwrap_or_default()
    );
    Ok(())
}

/// What may pass in silence until all processes have met.
#[cfg(unix)]
const SILENCE: Duration = Duration::from_secs(10);

/// Does `work`, which waits for the others, and says so if that takes long.
#[cfg(unix)]
fn waiting_aloud<T>(launch: &qft_processes::Launch, work: impl FnOnce() -> T) -> T {
    let (done, awaited) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if awaited.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
                let place = launch.master.as_ref();
                let place = place.map(|master| format!(" at {}:{}", master.host, master.port));
                tracing::warn!(
                    "process {} waits for the others of its job{}; those that have not started have to",
                    launch.rank,
                    place.unwrap_or_default()
                );
            }
        });
        let out = work();
        drop(done);
        out
    })
}

/// What connects this process with those of its job; nothing where it is alone.
#[derive(Debug)]
pub struct Connection {
    #[cfg(unix)]
    processes: Option<Arc<qft_processes::Processes>>,
    #[cfg(unix)]
    deadline: Duration,
}

impl Connection {
    /// Connects the processes that a launcher started, or starts those that were asked for; a process alone loads nothing.
    ///
    /// Errors: there is no library of MPI that fits the launcher; a process does not come; other numbers of them are asked for
    /// than a launcher started. [`leave`](Self::leave) then.
    #[cfg(unix)]
    pub fn open(options: JobOptions) -> Result<Self> {
        use qft_processes::{Deadlines, Launch, Processes, Team};
        let JobOptions { processes: asked, timeout } = options;
        let (asked, deadlines) = (asked.unwrap_or(1), Deadlines::of(timeout));
        let processes = match Launch::detect().context(NOT_CONNECTED)? {
            Some(launch) => {
                check(asked, launch.size).of_kind(ErrorKind::Options)?;
                waiting_aloud(&launch, || Processes::open(&launch, deadlines))
            }
            None if asked == 1 => return Ok(Self { processes: None, deadline: timeout }),
            None => Team::of_this_program(asked).and_then(|team| Processes::start(team, deadlines)),
        };
        let processes = processes.context(NOT_CONNECTED)?;
        tracing::info!("connected by {}, on {}", processes.about(), processes.host());
        Ok(Self { processes: Some(Arc::new(processes)), deadline: timeout })
    }

    /// Nothing is connected on this system.
    ///
    /// Errors: processes are asked for.
    #[cfg(not(unix))]
    pub fn open(options: JobOptions) -> Result<Self> {
        check(options.processes.unwrap_or(1), Some(1)).of_kind(ErrorKind::Options)?;
        Ok(Self {})
    }

    /// Ends this process at once with code 1: after an error of [`open`](Self::open), a usual end might wait for others.
    pub fn leave() -> ! {
        #[cfg(unix)]
        qft_processes::Processes::leave();
        #[cfg(not(unix))]
        std::process::exit(1)
    }

    /// The job.
    pub fn job(&self) -> Job {
        #[cfg(unix)]
        if let Some(processes) = &self.processes {
            let processes: Arc<qft_processes::Processes> = Arc::clone(processes);
            return Job::of(processes).with_deadline(self.deadline);
        }
        Job::alone()
    }

    /// The good end, which waits for the other processes. Everything that uses the job must be gone. If one does not come to
    /// its end, all processes are ended.
    pub fn finish(self) {
        #[cfg(unix)]
        if let Some(processes) = self.processes
            && let Some(processes) = Arc::into_inner(processes)
        {
            processes.finish();
        }
    }
}
