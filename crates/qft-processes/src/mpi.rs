//! Processes that MPI connects: a thread of its own makes all calls of MPI, for callers who wait for it, one after the other, and
//! beside them for what goes on while nobody waits.

mod calls;
mod exchange;
mod interface;
mod library;
mod line;
mod packed;
mod worker;

pub use packed::staging_bytes;

use crate::ending::end_process;
use crate::{Deadlines, Error, Launch, processes};
use calls::Operation;
use exchange::Exchange;
use line::{Line, Spare};
use packed::{ROUND_VALUES, piece_bytes, piece_of, rounds};
use qft_tensor::{Communicator, TrafficCounter};
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use worker::{Channels, Ready, Request};

/// What MPI gets to end all processes, before this one ends by itself and leaves the others to the launcher.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// Whether MPI was begun in this process.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// How long a launcher gets to read what was printed: MPICH's reads nothing more once a process has told it to end all.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A line to the other processes.
#[derive(Debug)]
pub(crate) struct Connected {
    ready: Arc<Ready>,
    line: Mutex<Line>,
    requests: Sender<Request>,
    abort: Arc<AtomicBool>,
    traffic: Arc<TrafficCounter>,
}

/// Loads the library, begins MPI, and makes sure that launcher and library belong together. Once in a process, and before
/// other threads read the environment, which libraries write to. Two lines come of it.
///
/// The library is that of `QFT_MPI_LIB`, if it is set, else the first that the system finds.
///
/// Errors: [`Error::NoLibrary`], [`Error::NoFunction`] and [`Error::UnknownInterface`] where there is no library to use,
/// [`Error::Misfit`] where it is another's, [`Error::Call`], [`Error::Slow`], [`Error::Twice`] and [`Error::Thread`] where it
/// does not begin.
pub(crate) fn open(
    launch: &Launch,
    deadlines: Deadlines,
    traffic: &Arc<TrafficCounter>,
) -> Result<[Connected; 2], Error> {
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
        Ok(ready) => Arc::new(ready?),
        Err(RecvTimeoutError::Timeout) => {
            return Err(Error::Slow { seconds: deadlines.first.as_secs_f64() });
        }
        Err(RecvTimeoutError::Disconnected) => {
            return Err(Error::Thread("it has ended".to_owned()));
        }
    };
    let connected = |(number, answers)| Connected {
        ready: Arc::clone(&ready),
        line: Mutex::new(Line::new(number, requests.clone(), answers, deadlines)),
        requests: requests.clone(),
        abort: Arc::clone(&abort),
        traffic: Arc::clone(traffic),
    };
    Ok([(0, answers), (1, background_answers)].map(connected))
}

impl processes::Line for Connected {
    fn about(&self) -> &str {
        &self.ready.library
    }

    fn host(&self) -> &str {
        &self.ready.host
    }

    fn lost(&self) -> Option<String> {
        self.line.lock().ok()?.lost().map(str::to_owned)
    }

    fn finish(&self) -> Result<(), qft_tensor::Error> {
        // MPI would wait for ever for one that is gone.
        self.max(&mut [0]).and_then(|()| self.with_line(Line::finish))
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
        processes::locked(self, &self.line, work)
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
