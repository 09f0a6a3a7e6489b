//! The processes of a job, however they are connected.

use crate::ending::{end_process, say};
use crate::{Deadlines, Error, Launch, Launcher, Team, mpi, tcp};
use qft_tensor::{Background, Communicator, Traffic, TrafficCounter};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A line to the other processes, which one caller uses at a time.
pub(crate) trait Line: Communicator {
    /// How they are connected, in words.
    fn about(&self) -> &str;

    /// The name of this machine.
    fn host(&self) -> &str;

    /// Why nothing can be exchanged any more, if so.
    fn lost(&self) -> Option<String>;

    /// Waits until all processes have come to their end.
    ///
    /// Errors: [`qft_tensor::Error::Communication`], if one does not come within the deadline, or the job was lost before.
    fn finish(&self) -> Result<(), qft_tensor::Error>;
}

/// Does `work` with what a line has for one caller at a time; what goes wrong is told with the place of `line`.
///
/// Errors: [`qft_tensor::Error::Communication`].
pub(crate) fn locked<T>(
    line: &dyn Line,
    own: &Mutex<T>,
    work: impl FnOnce(&mut T) -> Result<(), String>,
) -> Result<(), qft_tensor::Error> {
    let done = match own.lock() {
        Ok(mut own) => work(&mut own),
        Err(_) => Err("a thread panicked while it exchanged something".to_owned()),
    };
    done.map_err(|message| qft_tensor::Error::Communication {
        rank: line.rank(),
        size: line.size(),
        message: format!("on {}: {message}", line.host()),
    })
}

/// The processes of a job.
///
/// There are two lines between them: one for what is waited for, and one for what [goes on](Communicator::background) while
/// nobody waits. Dropped without [`finish`](Self::finish), it says so and ends all processes, this one at once: what libraries do
/// at the end of a program can wait for others.
pub struct Processes {
    line: Box<dyn Line>,
    background: Background,
    traffic: Arc<TrafficCounter>,
    finished: bool,
}

impl Processes {
    /// Connects this process with those that were started with it: by TCP under `torchrun`, by MPI under the others. Once in a
    /// process, and before other threads read the environment, which libraries of MPI write to.
    ///
    /// Errors: all of [`Error`], if there is nothing to connect them by, or one does not come. The process has to end then, by
    /// [`leave`](Self::leave).
    pub fn open(launch: &Launch, deadlines: Deadlines) -> Result<Self, Error> {
        let traffic = Arc::default();
        if launch.launcher == Launcher::Torchrun {
            return Self::over(tcp::join(launch, deadlines, &traffic)?, traffic);
        }
        Self::over(mpi::open(launch, deadlines, &traffic)?, traffic)
    }

    /// Starts the other processes of `team` on this machine, and connects this one with them by TCP. It is the first.
    ///
    /// Errors: [`Error::Team`] and [`Error::Meeting`] if one does not come. The process has to end then, by
    /// [`leave`](Self::leave).
    pub fn start(team: Team, deadlines: Deadlines) -> Result<Self, Error> {
        let traffic = Arc::default();
        Self::over(tcp::start(&team, deadlines, &traffic)?, traffic)
    }

    fn over<L: Line + 'static>(
        [line, beside]: [L; 2],
        traffic: Arc<TrafficCounter>,
    ) -> Result<Self, Error> {
        let background = Background::over(Arc::new(beside), Arc::clone(&traffic))
            .map_err(|error| Error::Thread(error.to_string()))?;
        Ok(Self { line: Box::new(line), background, traffic, finished: false })
    }

    /// Ends this process at once with code 1. After an error of [`open`](Self::open), MPI may still be at its begin, for which a
    /// usual end would wait.
    pub fn leave() -> ! {
        end_process()
    }

    /// What connects them, in words.
    pub fn about(&self) -> &str {
        self.line.about()
    }

    /// The name of this machine.
    pub fn host(&self) -> &str {
        self.line.host()
    }

    /// The good end: waits until all processes have come to it.
    ///
    /// If one does not come within the deadline, or the job was lost before, it is as if this were dropped without an end.
    pub fn finish(mut self) {
        self.finished = self.line.finish().is_ok();
    }

    /// An exchange for which the caller waits.
    fn awaited(
        &self,
        exchange: impl FnOnce(&dyn Line) -> Result<(), qft_tensor::Error>,
    ) -> Result<(), qft_tensor::Error> {
        let began = Instant::now();
        let done = exchange(&*self.line);
        self.traffic.add_exchanged(began.elapsed());
        self.traffic.add_waited(began.elapsed());
        done
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Communicator for Processes {
    fn rank(&self) -> usize {
        self.line.rank()
    }

    fn size(&self) -> usize {
        self.line.size()
    }

    fn max(&self, values: &mut [u32]) -> Result<(), qft_tensor::Error> {
        self.awaited(|line| line.max(values))
    }

    fn gather(&self, bytes: &mut [u8], parts: &[Range<usize>]) -> Result<(), qft_tensor::Error> {
        self.awaited(|line| line.gather(bytes, parts))
    }

    fn exchange(
        &self,
        send: &[u8],
        send_parts: &[Range<usize>],
        receive: &mut [u8],
        receive_parts: &[Range<usize>],
    ) -> Result<(), qft_tensor::Error> {
        self.awaited(|line| line.exchange(send, send_parts, receive, receive_parts))
    }

    fn background(&self) -> Option<&Background> {
        Some(&self.background)
    }

    fn traffic(&self) -> Traffic {
        self.traffic.total()
    }

    fn abort(&self) -> ! {
        self.line.abort()
    }
}

impl Drop for Processes {
    /// An end that is not good must not wait for the others, as `MPI_Finalize` would.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (rank, size, host) = (self.line.rank(), self.line.size(), self.line.host());
        let lost = self.line.lost().map(|lost| format!(": {lost}")).unwrap_or_default();
        say(&format!("process {rank} of {size} on {host} gives up, and ends the others{lost}"));
        self.abort()
    }
}
