//! GPUs that exchange: emulators, whose processes exchange for them.

use crate::Emulator;
use qft_cuda::{Driver, Error, PeerExchange, Peers};
use qft_tensor::{Communicator, Traffic};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Exchanges of an emulator with those of other processes.
///
/// An exchange is done when it is waited for, and not before: what is written to its buffers in between, or read from them too
/// early, comes out wrong.
#[derive(Debug)]
pub struct EmulatedPeers {
    emulator: Arc<Emulator>,
    processes: Arc<dyn Communicator>,
    started: Mutex<Started>,
}

/// Those that were not waited for, by their numbers.
#[derive(Debug, Default)]
struct Started {
    next: u64,
    exchanges: BTreeMap<u64, PeerExchange>,
}

impl EmulatedPeers {
    /// Of `emulator`, which is that of this process.
    pub fn new(emulator: Arc<Emulator>, processes: Arc<dyn Communicator>) -> Self {
        Self { emulator, processes, started: Mutex::default() }
    }

    fn started(&self) -> MutexGuard<'_, Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn download(&self, address: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut values = vec![0; bytes];
        self.emulator.download(&mut values, address)?;
        Ok(values)
    }

    fn exchange(&self, exchange: &PeerExchange) -> Result<(), Error> {
        const WORD: usize = size_of::<u32>();
        let processes = &*self.processes;
        let size = processes.size();
        match *exchange {
            PeerExchange::Max { values: at, len } => {
                let mut values = words(&self.download(at, len * WORD)?);
                processes.max(&mut values).map_err(lost)?;
                self.emulator.upload(at, &bytes(&values))
            }
            PeerExchange::Sum { shares, sums, len } => {
                let part = |r: usize| r * len * WORD..(r + 1) * len * WORD;
                let parts: Vec<Range<usize>> = (0..size).map(part).collect();
                let send = self.download(shares, size * len * WORD)?;
                let mut received = vec![0; send.len()];
                processes.exchange(&send, &parts, &mut received, &parts).map_err(lost)?;
                let received = words(&received);
                let sum =
                    |i| (0..size).fold(0, |sum: u32, r| sum.wrapping_add(received[r * len + i]));
                self.emulator.upload(sums, &bytes(&(0..len).map(sum).collect::<Vec<_>>()))
            }
            PeerExchange::Gather { bytes: at, ref parts } => {
                let end = parts.iter().map(|part| part.end).max().unwrap_or(0);
                let mut all = self.download(at, end)?;
                processes.gather(&mut all, parts).map_err(lost)?;
                self.emulator.upload(at, &all)
            }
        }
    }
}

impl Peers for EmulatedPeers {
    fn start(&self, exchange: PeerExchange) -> Result<u64, Error> {
        let mut started = self.started();
        let number = started.next;
        started.next += 1;
        started.exchanges.insert(number, exchange);
        Ok(number)
    }

    fn wait(&self, number: u64) -> Result<(), Error> {
        let exchange = self.started().exchanges.remove(&number);
        match exchange {
            Some(exchange) => self.exchange(&exchange),
            None => Err(failure("an exchange that was not started".to_owned())),
        }
    }

    fn traffic(&self) -> Traffic {
        self.processes.traffic()
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn lost(error: qft_tensor::Error) -> Error {
    failure(error.to_string())
}

fn failure(message: String) -> Error {
    Error::Nccl { call: "emulated exchange".to_owned(), message }
}
