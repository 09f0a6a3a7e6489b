//! The thread that owns MPI: it begins it, makes every call, and ends it.

use crate::calls::{AnyCalls, Calls, Operation};
use crate::interface::Handle;
use crate::library::{Library, candidates};
use crate::{Error, Launch};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Names the library that is to be loaded.
const LIBRARY_VARIABLE: &str = "QFT_MPI_LIB";

/// Questions whether an operation has ended without a pause between them.
const EAGER_TESTS: u32 = 64;

/// From here on an operation waits for another process rather than for its bytes, and needs the processor no more.
const SLEEPS_AFTER: Duration = Duration::from_millis(10);

/// The longest sleep between two questions.
const LONGEST_SLEEP: Duration = Duration::from_micros(200);

/// What is asked of the thread.
pub(crate) enum Request {
    /// Do this, within that time.
    Operation(Operation, Duration),
    /// End MPI with all others.
    Finish,
    /// End all processes.
    Abort,
}

/// What the thread says of an operation, when it has ended; nothing of it, of the end of MPI. Or why not.
pub(crate) type Answer = Result<Option<Operation>, String>;

/// What there is once MPI has begun.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The number of this process.
    pub(crate) rank: usize,
    /// How many there are.
    pub(crate) size: usize,
    /// The name of this machine.
    pub(crate) host: String,
    /// The library, in words.
    pub(crate) library: String,
}

/// What the thread hears and says.
pub(crate) struct Channels {
    /// Once: whether MPI has begun.
    pub(crate) ready: Sender<Result<Ready, Error>>,
    /// What is to be done.
    pub(crate) requests: Receiver<Request>,
    /// What has been done.
    pub(crate) answers: Sender<Answer>,
    /// Set when all is to end, whatever is under way.
    pub(crate) abort: Arc<AtomicBool>,
}

/// The thread's life: from the library to its end.
pub(crate) fn run(launch: &Launch, channels: &Channels) {
    let names = candidates(std::env::var(LIBRARY_VARIABLE).ok(), launch.launcher);
    let calls = Library::open(&names, launch.launcher).and_then(|library| AnyCalls::of(&library));
    match calls {
        Ok(AnyCalls::Pointers(calls)) => Worker { calls, channels }.run(launch),
        Ok(AnyCalls::Integers(calls)) => Worker { calls, channels }.run(launch),
        Err(error) => _ = channels.ready.send(Err(error)),
    }
}

struct Worker<'a, H> {
    calls: Calls<H>,
    channels: &'a Channels,
}

impl<H: Handle> Worker<'_, H> {
    fn run(&self, launch: &Launch) {
        let ready = self.begin(launch);
        let begun = ready.is_ok();
        // Nobody waits any more if it took too long.
        if self.channels.ready.send(ready).is_ok() && begun {
            self.serve();
        }
    }

    fn begin(&self, launch: &Launch) -> Result<Ready, Error> {
        let about = self.calls.about();
        if !launch.launcher.may_belong_to(about) {
            // Some libraries end the process where they do not find their own launcher.
            eprintln!(
                "note: {} started this process, but {about} was loaded; if MPI does not begin, set {LIBRARY_VARIABLE} to the \
                 libmpi of the launcher",
                launch.launcher
            );
        }
        self.calls.init()?;
        let (rank, size) = self.calls.rank_and_size()?;
        if rank != launch.rank || launch.size.is_some_and(|launched| launched != size) {
            let place = |rank: usize, size: Option<usize>| match size {
                Some(size) => format!("{rank} of {size}"),
                None => rank.to_string(),
            };
            return Err(Error::Misfit {
                launcher: launch.launcher,
                launched: place(launch.rank, launch.size),
                library: about.to_owned(),
                found: place(rank, Some(size)),
            });
        }
        Ok(Ready { rank, size, host: self.calls.host(), library: about.to_owned() })
    }

    /// Until the end, or until nobody is there to ask.
    fn serve(&self) {
        while let Ok(request) = self.channels.requests.recv() {
            let answer = match request {
                Request::Operation(operation, patience) => self.complete(operation, patience),
                Request::Finish => {
                    self.calls.finalize().map(|()| None).map_err(|error| error.to_string())
                }
                Request::Abort => self.calls.abort(),
            };
            let finished = matches!(answer, Ok(None));
            if self.channels.answers.send(answer).is_err() || finished {
                return;
            }
        }
    }

    fn complete(&self, operation: Operation, patience: Duration) -> Answer {
        let what = operation.to_string();
        let failed = |error: Error| format!("{what}: {error}");
        let mut pending = self.calls.start(operation).map_err(failed)?;
        let began = Instant::now();
        for round in 0_u32.. {
            if let Some(operation) = self.calls.test(&mut pending).map_err(failed)? {
                return Ok(Some(operation));
            }
            if round < EAGER_TESTS {
                continue;
            }
            if self.channels.abort.load(Ordering::Relaxed) {
                self.calls.abort();
            }
            let waited = began.elapsed();
            if waited > patience {
                break;
            }
            if waited < SLEEPS_AFTER {
                thread::yield_now();
            } else {
                thread::sleep((waited / 128).min(LONGEST_SLEEP));
            }
        }
        Err(format!(
            "{what} did not end within {} s: another process has ended, is stopped, or cannot be reached; see what the others \
             say, and allow more time if one is only slow",
            patience.as_secs_f64()
        ))
    }
}
