//! The thread that owns MPI: it begins it, makes every call, and ends it.

use super::calls::{AnyCalls, Calls, LINES, Operation, Pending};
use super::interface::Handle;
use super::library::{Library, candidates};
use crate::ending::say;
use crate::{Error, Launch};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// Names the library that is to be loaded.
const LIBRARY_VARIABLE: &str = "QFT_MPI_LIB";

/// Questions whether an operation has ended without a pause between them.
const EAGER_TESTS: u32 = 64;

/// The first lines: somebody waits for their operations. Beside those of the others, this process computes.
const AWAITED_LINES: usize = 1;

/// From here on an operation waits for another process rather than for its bytes, and needs the processor no more.
const SLEEPS_AFTER: Duration = Duration::from_millis(10);

/// The longest sleep between two questions.
const LONGEST_SLEEP: Duration = Duration::from_micros(200);

/// What is asked of the thread.
pub(crate) enum Request {
    /// Do this on that line, after what was asked of it before, within that time.
    Operation(usize, Operation, Duration),
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
    /// What has been done, for each line.
    pub(crate) answers: [Sender<Answer>; LINES],
    /// Set when all is to end, whatever is under way.
    pub(crate) abort: Arc<AtomicBool>,
}

/// The thread's life: from the library to its end.
pub(crate) fn run(launch: &Launch, channels: &Channels) {
    let names = candidates(std::env::var(LIBRARY_VARIABLE).ok(), launch.launcher);
    let calls = Library::open(&names, launch.launcher).and_then(|library| AnyCalls::of(&library));
    match calls {
        Ok(AnyCalls::Pointers(calls)) => begin_and_serve(calls, launch, channels),
        Ok(AnyCalls::Integers(calls)) => begin_and_serve(calls, launch, channels),
        Err(error) => _ = channels.ready.send(Err(error)),
    }
}

fn begin_and_serve<H: Handle>(calls: Calls<H>, launch: &Launch, channels: &Channels) {
    let (ready, lines) = match begin(&calls, launch) {
        Ok((ready, lines)) => (Ok(ready), Some(lines)),
        Err(error) => (Err(error), None),
    };
    // Nobody waits any more if it took too long.
    if channels.ready.send(ready).is_ok()
        && let Some(lines) = lines
    {
        let lines = lines.map(|handle| Line { handle, asked: VecDeque::new(), current: None });
        Worker { calls, channels, lines }.serve();
    }
}

fn begin<H: Handle>(calls: &Calls<H>, launch: &Launch) -> Result<(Ready, [H; LINES]), Error> {
    let about = calls.about();
    if !launch.launcher.may_belong_to(about) {
        // Some libraries end the process where they do not find their own launcher.
        say(&format!(
            "note: {} started this process, but {about} was loaded; if MPI does not begin, set {LIBRARY_VARIABLE} to the \
             libmpi of the launcher",
            launch.launcher
        ));
    }
    calls.init()?;
    let (rank, size) = calls.rank_and_size()?;
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
    let ready = Ready { rank, size, host: calls.host(), library: about.to_owned() };
    Ok((ready, calls.lines()?))
}

/// What is done one after the other.
struct Line<H> {
    handle: H,
    asked: VecDeque<(Operation, Duration)>,
    current: Option<Current<H>>,
}

/// An operation that is under way.
struct Current<H> {
    what: String,
    pending: Pending<H>,
    began: Instant,
    patience: Duration,
    tests: u32,
}

struct Worker<'a, H> {
    calls: Calls<H>,
    channels: &'a Channels,
    lines: [Line<H>; LINES],
}

impl<H: Handle> Worker<'_, H> {
    /// Until the end, or until nobody is there to ask.
    fn serve(&mut self) {
        loop {
            let idle =
                self.lines.iter().all(|line| line.current.is_none() && line.asked.is_empty());
            let requests = &self.channels.requests;
            let request = match idle {
                true => requests.recv().map_err(|_| TryRecvError::Disconnected),
                false => requests.try_recv(),
            };
            match request {
                Ok(Request::Operation(line, operation, patience)) => {
                    self.lines[line].asked.push_back((operation, patience));
                }
                Ok(Request::Finish) => {
                    let end = self.calls.finalize().map(|()| None);
                    let _ = self.channels.answers[0].send(end.map_err(|error| error.to_string()));
                    return;
                }
                Ok(Request::Abort) => self.calls.abort(),
                Err(TryRecvError::Disconnected) if idle => return,
                Err(_) => {}
            }
            for line in 0..LINES {
                if let Some(answer) = self.progress(line)
                    && self.channels.answers[line].send(answer).is_err()
                {
                    return;
                }
            }
            self.pause();
        }
    }

    /// Begins what a line is asked for, and asks whether it has ended.
    fn progress(&mut self, line: usize) -> Option<Answer> {
        let Self { calls, lines, .. } = self;
        let line = &mut lines[line];
        if line.current.is_none() {
            let (operation, patience) = line.asked.pop_front()?;
            let what = operation.to_string();
            match calls.start(line.handle, operation) {
                Ok(pending) => {
                    let began = Instant::now();
                    line.current = Some(Current { what, pending, began, patience, tests: 0 });
                }
                Err(error) => return Some(Err(format!("{what}: {error}"))),
            }
        }
        let current = line.current.as_mut()?;
        current.tests = current.tests.saturating_add(1);
        let answer = match calls.test(&mut current.pending) {
            Ok(None) if current.began.elapsed() <= current.patience => return None,
            Ok(None) => Err(format!(
                "{} did not end within {} s: another process has ended, is stopped, or cannot be reached; see what the others \
                 say, and allow more time if one is only slow",
                current.what,
                current.patience.as_secs_f64()
            )),
            Ok(ended) => Ok(ended),
            Err(error) => Err(format!("{}: {error}", current.what)),
        };
        line.current = None;
        Some(answer)
    }

    /// Leaves the processor to others while nothing ends; ends everything, if that is asked for.
    fn pause(&self) {
        let under_way = |line: &Line<H>| line.current.as_ref().map(|current| current.tests);
        let (awaited, beside) = self.lines.split_at(AWAITED_LINES);
        if awaited.iter().filter_map(under_way).any(|tests| tests < EAGER_TESTS) {
            return;
        }
        if self.channels.abort.load(Ordering::Relaxed) {
            self.calls.abort();
        }
        let waited = awaited.iter().filter_map(|line| line.current.as_ref());
        match waited.map(|current| current.began.elapsed()).min() {
            Some(waited) if waited < SLEEPS_AFTER => thread::yield_now(),
            Some(waited) => thread::sleep((waited / 128).min(LONGEST_SLEEP)),
            // The processor is busy with what comes next.
            None if beside.iter().any(|line| line.current.is_some()) => {
                thread::sleep(LONGEST_SLEEP)
            }
            None => {}
        }
    }
}
