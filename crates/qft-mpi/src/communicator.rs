//! The processes of a job that MPI connects.

use crate::calls::Operation;
use crate::exchange::Exchange;
use crate::library::{end_process, say};
use crate::line::{Deadlines, Line, Spare};
use crate::packed::{ROUND_VALUES, piece_bytes, piece_of, rounds};
use crate::worker::{self, Channels, Ready, Request};
use crate::{Error, Launch, Launcher};
use qft_tensor::{Background, Communicator, Traffic, TrafficCounter};
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What MPI gets to end all processes, before this one ends by itself and leaves the others to the launcher.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// Whether MPI was begun in this process.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// How long a launcher gets to read what was printed: MPICH's reads nothing more once a process has told it to end all.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The processes of a job, connected by MPI.
///
/// A thread of its own makes all calls of MPI, for callers who wait for it, one after the other, and beside them for what
/// [goes on](Communicator::background) while nobody waits. Dropped without
/// [`finish`](Mpi::finish), it says so and ends all processes, this one at once: what libraries do at the end of a program can
/// wait for others.
#[derive(Debug)]
pub struct Mpi {
    line: Connected,
    background: Background,
    traffic: Arc<TrafficCounter>,
    finished: bool,
}

/// One of the lines to the other processes.
#[derive(Debug)]
struct Connected {
    ready: Arc<Ready>,
    line: Mutex<Line>,
    requests: Sender<Request>,
    abort: Arc<AtomicBool>,
    traffic: Arc<TrafficCounter>,
}

impl Mpi {
    /// Loads the library, begins MPI, and makes sure that launcher and library belong together. Once in a process, and before
    /// other threads read the environment, which libraries write to.
    ///
    /// The library is that of `QFT_MPI_LIB`, if it is set, else the first that the system finds.
    ///
    /// Errors: [`Error::NoMpi`] under `torchrun`, [`Error::NoLibrary`], [`Error::NoFunction`] and
    /// [`Error::UnknownInterface`] where there is no library to use, [`Error::Misfit`] where it is another's, [`Error::Call`],
    /// [`Error::Slow`], [`Error::Twice`] and [`Error::Thread`] where it does not begin. The process has to end then, by
    /// [`leave`](Self::leave) if it was to begin.
    pub fn open(launch: &Launch, deadlines: Deadlines) -> Result<Self, Error> {
        if launch.launcher == Launcher::Torchrun {
            return Err(Error::NoMpi { launcher: launch.launcher });
        }
        if BEGUN.swap(true, Ordering::Relaxed) {
            return Err(Error::Twice);
        }
        let (say_ready, hear_ready) = channel();
        let (requests, hear_requests) = channel();
        let (say_answers, answers) = channel();
        let (say_background_answers, background_answers) = channel();
        let abort = Arc::new(AtomicBool::new(false));
        let channels = Channels {
            ready: say_ready,
            requests: hear_requests,
            answers: [say_answers, say_background_answers],
            abort: Arc::clone(&abort),
        };
        let launch = launch.clone();
        thread::Builder::new()
            .name("mpi".to_owned())
            .spawn(move || worker::run(&launch, &channels))
            .map_err(|error| Error::Thread(error.to_string()))?;
        let ready = match hear_ready.recv_timeout(deadlines.first) {
            Ok(ready) => ready?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error::Slow { seconds: deadlines.first.as_secs_f64() });
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::Thread("it has ended".to_owned()));
            }
        };
        let (ready, traffic) = (Arc::new(ready), Arc::<TrafficCounter>::default());
        let connected = |number, answers| Connected {
            ready: Arc::clone(&ready),
            line: Mutex::new(Line::new(number, requests.clone(), answers, deadlines)),
            requests: requests.clone(),
            abort: Arc::clone(&abort),
            traffic: Arc::clone(&traffic),
        };
        let line = connected(0, answers);
        let beside = Arc::new(connected(1, background_answers));
        let background = Background::over(beside, Arc::clone(&traffic))
            .map_err(|error| Error::Thread(error.to_string()))?;
        Ok(Self { line, background, traffic, finished: false })
    }

    /// Ends this process at once with code 1. After an error of [`open`](Self::open), MPI may still be at its begin, for which a
    /// usual end would wait.
    pub fn leave() -> ! {
        end_process()
    }

    /// The library in words: its version, where it was found, its interface.
    pub fn library(&self) -> &str {
        &self.line.ready.library
    }

    /// The name of this machine, as MPI has it.
    pub fn host(&self) -> &str {
        &self.line.ready.host
    }

    /// The good end: waits until all processes have come to it, and ends MPI.
    ///
    /// If one does not come within the deadline, or the job was lost before, it is as if this were dropped without an end.
    pub fn finish(mut self) {
        // MPI would wait for ever for one that is gone.
        let ended = self.line.max(&mut [0]).and_then(|()| self.line.with_line(Line::finish));
        self.finished = ended.is_ok();
    }

    /// An exchange for which the caller waits.
    fn awaited(
        &self,
        exchange: impl FnOnce(&Connected) -> Result<(), qft_tensor::Error>,
    ) -> Result<(), qft_tensor::Error> {
        let began = Instant::now();
        let done = exchange(&self.line);
        self.traffic.add_exchanged(began.elapsed());
        self.traffic.add_waited(began.elapsed());
        done
    }
}

impl Connected {
    fn max_in_rounds(&self, values: &mut [u32]) -> Result<(), qft_tensor::Error> {
        let all = 0..values.len();
        let total = rounds(std::slice::from_ref(&all), ROUND_VALUES);
        let fill = |values: &[u32], round, _: &mut Spare| {
            let values = &values[piece_of(&all, round, ROUND_VALUES)];
            let mine: Vec<_> = values.iter().map(|value| signed(*value)).collect();
            Operation::Max { largest: vec![0; mine.len()], mine }
        };
        let empty = |values: &mut [u32], round, operation: &Operation| {
            if let Operation::Max { largest, .. } = operation {
                let values = &mut values[piece_of(&all, round, ROUND_VALUES)];
                for (value, largest) in values.iter_mut().zip(largest) {
                    *value = unsigned(*largest);
                }
            }
            total
        };
        let bytes = size_of_val(values) * (self.ready.size - 1);
        self.traffic.add_bytes(bytes, bytes);
        self.with_line(|line| line.rounds(values, total, fill, empty))
    }

    fn with_line(
        &self,
        work: impl FnOnce(&mut Line) -> Result<(), String>,
    ) -> Result<(), qft_tensor::Error> {
        let done = match self.line.lock() {
            Ok(mut line) => work(&mut line),
            Err(_) => Err("a thread panicked while it exchanged something".to_owned()),
        };
        let (rank, size) = (self.ready.rank, self.ready.size);
        done.map_err(|message| qft_tensor::Error::Communication {
            rank,
            size,
            message: format!("on {}: {message}", self.ready.host),
        })
    }
}

impl Communicator for Mpi {
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

impl Communicator for Connected {
    fn rank(&self) -> usize {
        self.ready.rank
    }

    fn size(&self) -> usize {
        self.ready.size
    }

    fn max(&self, values: &mut [u32]) -> Result<(), qft_tensor::Error> {
        self.max_in_rounds(values)
    }

    fn gather(&self, bytes: &mut [u8], parts: &[Range<usize>]) -> Result<(), qft_tensor::Error> {
        let (rank, size) = (self.ready.rank, self.ready.size);
        assert_eq!(parts.len(), size, "a part for every process");
        let piece = piece_bytes(size);
        let total = rounds(parts, piece);
        let fill = |bytes: &[u8], round, spare: &mut Spare| {
            let pieces = parts.iter().map(|part| piece_of(part, round, piece));
            Operation::Gather {
                mine: spare.copy(&bytes[piece_of(&parts[rank], round, piece)]),
                all: spare.room(pieces.map(|piece| piece.len())),
            }
        };
        let empty = |bytes: &mut [u8], round, operation: &Operation| {
            if let Operation::Gather { all, .. } = operation {
                for (r, part) in parts.iter().enumerate().filter(|(r, _)| *r != rank) {
                    bytes[piece_of(part, round, piece)].copy_from_slice(all.of(r));
                }
            }
            total
        };
        let all: usize = parts.iter().map(Range::len).sum();
        self.traffic.add_bytes(parts[rank].len() * (size - 1), all - parts[rank].len());
        self.with_line(|line| line.rounds(bytes, total, fill, empty))
    }

    fn exchange(
        &self,
        send: &[u8],
        send_parts: &[Range<usize>],
        receive: &mut [u8],
        receive_parts: &[Range<usize>],
    ) -> Result<(), qft_tensor::Error> {
        let (rank, size) = (self.ready.rank, self.ready.size);
        assert_eq!(
            (send_parts.len(), receive_parts.len()),
            (size, size),
            "a part for every process"
        );
        let of_others = |parts: &[Range<usize>]| -> usize {
            parts.iter().map(Range::len).sum::<usize>() - parts[rank].len()
        };
        self.traffic.add_bytes(of_others(send_parts), of_others(receive_parts));
        let exchange = Exchange { rank, piece: piece_bytes(size), send, send_parts, receive_parts };
        self.with_line(|line| exchange.run(line, receive))
    }

    fn abort(&self) -> ! {
        // If stdout is closed there is nobody to tell.
        let _ = std::io::stdout().flush();
        thread::sleep(LAST_WORDS);
        self.abort.store(true, Ordering::Relaxed);
        if self.requests.send(Request::Abort).is_ok() {
            thread::sleep(ABORT_PATIENCE);
        }
        end_process()
    }
}

impl Drop for Mpi {
    /// An end that is not good must not wait for the others, as `MPI_Finalize` would.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let lost = match self.line.line.get_mut() {
            Ok(line) => line.lost().map(|lost| format!(": {lost}")),
            Err(_) => None,
        };
        let Ready { rank, size, host, .. } = &*self.line.ready;
        let lost = lost.unwrap_or_default();
        say(&format!("process {rank} of {size} on {host} gives up, and ends the others{lost}"));
        self.abort()
    }
}

/// A signed integer for each unsigned one, in the same order: MPICH 4.0.2 finds the maximum of `MPI_UINT32_T` as if it had a sign.
fn signed(value: u32) -> i32 {
    (value ^ SIGN).cast_signed()
}

/// The value of which [`signed`] made this.
fn unsigned(value: i32) -> u32 {
    value.cast_unsigned() ^ SIGN
}

const SIGN: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_values_have_the_order_of_unsigned_ones() {
        let values = [0, 1, SIGN - 1, SIGN, SIGN + 1, u32::MAX];
        assert!(values.is_sorted_by_key(|value| signed(*value)));
        assert_eq!(values.map(|value| unsigned(signed(value))), values);
    }
}
