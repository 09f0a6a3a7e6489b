//! Exchanges between GPUs by NCCL, on a stream of their own: they go on while the GPU computes.

#![allow(unsafe_code)] // Calls of NVIDIA's libraries.

mod library;
#[cfg(test)]
mod tests;

pub use library::{Calls, ID_BYTES};

use crate::error::failed;
use crate::gpu::Gpu;
use crate::{Driver, Error, PeerExchange, Peers};
use cudarc::driver::{CudaEvent, CudaStream, sys};
use library::{Comm, Line, Stream};
use qft_tensor::{Traffic, TrafficCounter};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// For so long a wait looks again at once; afterwards it sleeps in between.
const SPIN: Duration = Duration::from_micros(200);
/// How long it sleeps.
const SLEEP: Duration = Duration::from_micros(50);
/// How often a wait asks whether the exchange has failed.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A GPU's place among those of its job.
pub struct Nccl {
    calls: Arc<Calls>,
    comm: Handle,
    rank: usize,
    size: usize,
    deadline: Duration,
    under_way: Mutex<UnderWay>,
    traffic: TrafficCounter,
    // Last: what was started uses them.
    stream: Arc<CudaStream>,
    gpu: Arc<Gpu>,
}

/// A handle that any thread may use, one at a time.
struct Handle(Comm);

// SAFETY: NCCL allows calls from any thread as long as there is one at a time; every use holds the lock of `under_way`, or is
// the last.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// Exchanges that were started and not waited for.
#[derive(Default)]
struct UnderWay {
    next: u64,
    exchanges: BTreeMap<u64, Started>,
}

/// When it began, and when it ends, by the GPU.
struct Started {
    began: CudaEvent,
    ended: CudaEvent,
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nccl")
            .field("calls", &self.calls)
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Nccl {
    /// Joins `gpu` to the job of the identity `id` as process `rank` of `size`, and tries every kind of exchange. Whatever
    /// takes longer than `deadline`, then or later, is an error.
    ///
    /// Errors: [`Error::Nccl`]; the threads of a call that does not end are left behind.
    pub fn join(
        calls: Calls,
        gpu: Arc<Gpu>,
        (id, rank, size): ([u8; ID_BYTES], usize, usize),
        deadline: Duration,
    ) -> Result<Self, Error> {
        let (say, said) = channel();
        let calls = Arc::new(calls);
        let join = move || {
            let joined = Self::join_and_try(calls, gpu, (id, rank, size), deadline);
            // Nobody listens after the deadline.
            let _ = say.send(joined);
        };
        thread::Builder::new()
            .name("nccl".to_owned())
            .spawn(join)
            .map_err(|error| nccl_error("joining", format!("no thread: {error}")))?;
        match said.recv_timeout(deadline) {
            Ok(joined) => joined,
            Err(RecvTimeoutError::Timeout) => Err(late("meeting the other GPUs", deadline)),
            Err(RecvTimeoutError::Disconnected) => {
                Err(nccl_error("joining", "the thread has ended".to_owned()))
            }
        }
    }

    fn join_and_try(
        calls: Arc<Calls>,
        gpu: Arc<Gpu>,
        (id, rank, size): ([u8; ID_BYTES], usize, usize),
        deadline: Duration,
    ) -> Result<Self, Error> {
        gpu.bind()?;
        let stream = gpu.context().new_stream().map_err(failed("cuStreamCreate"))?;
        let comm = Handle(calls.join(id, rank, size)?);
        let (under_way, traffic) = (Mutex::default(), TrafficCounter::default());
        let nccl = Self { calls, comm, rank, size, deadline, under_way, traffic, stream, gpu };
        nccl.try_exchanges()?;
        Ok(nccl)
    }

    /// Every kind of exchange once, with known outcomes; connections are made by the first of each.
    fn try_exchanges(&self) -> Result<(), Error> {
        /// Numbers of a part.
        const LEN: usize = 3;
        let (size, rank) = (self.size, self.rank as u32);
        let block = Block::new(&self.gpu, (size + 1) * LEN * size_of::<u32>())?;
        let (shares, sums) =
            (block.address, block.address + (size * LEN * size_of::<u32>()) as u64);
        let part = |r: usize| r * LEN * size_of::<u32>()..(r + 1) * LEN * size_of::<u32>();
        let run = |exchange| self.wait(self.start(exchange)?);

        // What process r has in place i is r + 100 i.
        let values: Vec<u32> = (0..size * LEN).map(|i| rank + 100 * i as u32).collect();
        block.upload(shares, &values)?;
        run(PeerExchange::Sum { shares, sums, len: LEN })?;
        let all: u32 = (0..size as u32).sum();
        let place = |i: usize| 100 * (self.rank * LEN + i) as u32;
        let expected: Vec<u32> = (0..LEN).map(|i| all + size as u32 * place(i)).collect();
        block.expect("a sum", sums, &expected)?;

        run(PeerExchange::Max { values: shares, len: size * LEN })?;
        let expected: Vec<u32> =
            values.iter().map(|value| value - rank + size as u32 - 1).collect();
        block.expect("a maximum", shares, &expected)?;

        block.upload(shares, &values)?;
        run(PeerExchange::Gather { bytes: shares, parts: (0..size).map(part).collect() })?;
        let of = |i: usize| (i / LEN) as u32 + 100 * i as u32;
        block.expect("a collection", shares, &(0..size * LEN).map(of).collect::<Vec<_>>())
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        // Complete between statements.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> Line<'_> {
        let stream = self.stream.cu_stream() as Stream;
        Line { calls: &self.calls, comm: self.comm.0, stream }
    }

    fn count(&self, exchange: &PeerExchange) {
        let others = self.size - 1;
        match exchange {
            // In rings, as it goes round twice.
            PeerExchange::Max { len, .. } => {
                let bytes = 2 * others * len * size_of::<u32>() / self.size;
                self.traffic.add_bytes(bytes, bytes);
            }
            PeerExchange::Sum { len, .. } => {
                let bytes = others * len * size_of::<i32>();
                self.traffic.add_bytes(bytes, bytes);
            }
            PeerExchange::Gather { parts, .. } => {
                let (own, all) = (parts[self.rank].len(), parts.iter().map(|part| part.len()));
                self.traffic.add_bytes(own * others, all.sum::<usize>() - own);
            }
        }
    }
}

impl Peers for Nccl {
    fn start(&self, exchange: PeerExchange) -> Result<u64, Error> {
        let mut under_way = self.under_way();
        self.gpu.bind()?;
        let (context, stream) = (self.gpu.context(), &self.stream);
        let event = |flags| context.new_event(Some(flags)).map_err(failed("cuEventCreate"));
        let (began, ended) = (
            event(sys::CUevent_flags::CU_EVENT_DEFAULT)?,
            event(sys::CUevent_flags::CU_EVENT_DEFAULT)?,
        );
        let ready = self.gpu.stream().record_event(None).map_err(failed("cuEventRecord"))?;
        stream.wait(&ready).map_err(failed("cuStreamWaitEvent"))?;
        began.record(stream).map_err(failed("cuEventRecord"))?;
        let line = self.line();
        // SAFETY: addresses and lengths are those of buffers that the caller keeps until it has waited, as `Collectives` asks;
        // an address that is not the GPU's is the GPU's to find.
        unsafe {
            match &exchange {
                PeerExchange::Max { values, len } => line.max(*values, *len)?,
                PeerExchange::Sum { shares, sums, len } => line.sum(*shares, *sums, *len)?,
                PeerExchange::Gather { bytes, parts } => {
                    line.gather(parts.iter().map(|part| (bytes + part.start as u64, part.len())))?;
                }
            }
        }
        ended.record(stream).map_err(failed("cuEventRecord"))?;
        self.count(&exchange);
        let number = under_way.next;
        under_way.next += 1;
        under_way.exchanges.insert(number, Started { began, ended });
        Ok(number)
    }

    fn wait(&self, number: u64) -> Result<(), Error> {
        let mut under_way = self.under_way();
        let Some(Started { began, ended }) = under_way.exchanges.remove(&number) else {
            return Err(nccl_error("waiting", "an exchange that was not started".to_owned()));
        };
        self.gpu.bind()?;
        let (start, mut asked) = (Instant::now(), Instant::now());
        // The host waits, not the GPU alone: a process that is gone must not be waited for without an end.
        while !ended.try_is_complete().map_err(failed("an exchange between GPUs"))? {
            if asked.elapsed() > ASK_EVERY {
                self.line().check_progress()?;
                asked = Instant::now();
            }
            match start.elapsed() {
                waited if waited > self.deadline => {
                    return Err(late("an exchange between GPUs", self.deadline));
                }
                waited if waited > SPIN => thread::sleep(SLEEP),
                _ => thread::yield_now(),
            }
        }
        self.traffic.add_waited(start.elapsed());
        let took = began.elapsed_ms(&ended).map_err(failed("cuEventElapsedTime"))?;
        self.traffic.add_exchanged(Duration::from_secs_f32(took.max(0.0) * 1e-3));
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        self.traffic.total()
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: the last use. What is still under way belongs to a job that is lost.
            unsafe { self.line().leave() };
        }
    }
}

/// Memory of a trial.
struct Block<'a> {
    gpu: &'a Gpu,
    address: u64,
}

impl<'a> Block<'a> {
    fn new(gpu: &'a Gpu, bytes: usize) -> Result<Self, Error> {
        Ok(Self { gpu, address: gpu.alloc(bytes)? })
    }

    fn upload(&self, to: u64, values: &[u32]) -> Result<(), Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.gpu.upload(to, &bytes)
    }

    /// Errors: others than `expected` are at this address.
    fn expect(&self, what: &'static str, at: u64, expected: &[u32]) -> Result<(), Error> {
        let mut bytes = vec![0; size_of_val(expected)];
        self.gpu.download(&mut bytes, at)?;
        let got = bytes.as_chunks().0.iter().map(|bytes| u32::from_ne_bytes(*bytes));
        if got.eq(expected.iter().copied()) {
            return Ok(());
        }
        Err(nccl_error("trying an exchange", format!("{what} between GPUs comes out wrong")))
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        // What fails here was reported before.
        let _ = self.gpu.free(self.address);
    }
}

fn nccl_error(call: &str, message: String) -> Error {
    Error::Nccl { call: call.to_owned(), message }
}

fn late(what: &str, deadline: Duration) -> Error {
    let message = format!(
        "did not end within {} s (--comm-timeout): another process is gone or stuck",
        deadline.as_secs()
    );
    nccl_error(what, message)
}
