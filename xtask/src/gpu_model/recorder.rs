//! A GPU that has no memory and computes nothing: it writes down what it is asked to do.
//!
//! What a step launches is so that of the trainer's own code, whatever the size of the model.

use super::cards::Card;
use super::memory::Known;
use anyhow::Result;
use qft_cuda::{Arg, Driver, Error, Launch, MemoryInfo, Properties, Signature, ptx};
use qft_tensor::Pieces;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The alignment of blocks of memory.
const ALIGNMENT: u64 = 512;
/// What the driver, its context and the kernels take of a card.
const DRIVER_BYTES: u64 = 1 << 30;
/// Uploads up to this size are kept: tables and numbers of tokens, which decide where threads go.
const KEPT_BYTES: usize = 4 << 20;

/// One kernel that was started.
#[derive(Debug, Clone)]
pub(super) struct Launched {
    pub(super) kernel: &'static str,
    pub(super) launch: Launch,
    pub(super) args: Vec<Arg>,
    /// What the host has sent to where its arguments point.
    pub(super) known: Vec<Known>,
}

/// One thing that the device was asked to do.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Launch(Launched),
    /// To an address, from an address of this device.
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    Zero {
        to: u64,
        bytes: u64,
    },
}

/// The device.
#[derive(Debug)]
pub(super) struct Recorder {
    properties: Properties,
    memory_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    blocks: BTreeMap<u64, u64>,
    used: u64,
    peak: u64,
    exhausted: bool,
    sent: BTreeMap<u64, Arc<[u8]>>,
    requests: Vec<Request>,
}

impl Recorder {
    pub(super) fn new(card: &Card) -> Self {
        let properties = Properties {
            name: card.name.to_owned(),
            ordinal: 0,
            compute_capability: card.compute_capability,
            multiprocessors: card.multiprocessors,
            max_shared_bytes: card.max_shared_bytes,
        };
        let state = State { next: 1 << 32, ..State::default() };
        Self {
            properties,
            memory_bytes: card.memory_bytes - DRIVER_BYTES,
            state: Mutex::new(state),
        }
    }

    /// All requests since the last call.
    pub(super) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    /// Whether more memory was asked for than there is.
    pub(super) fn is_exhausted(&self) -> bool {
        self.state().exhausted
    }

    /// The most bytes that were taken at a time.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.state().peak
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each field is complete between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Recorder {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory_info(&self) -> Result<MemoryInfo, Error> {
        let total_bytes = self.memory_bytes;
        Ok(MemoryInfo { free_bytes: total_bytes - self.state().used, total_bytes })
    }

    fn alloc(&self, bytes: usize) -> Result<u64, Error> {
        let mut state = self.state();
        let size = (bytes as u64).next_multiple_of(ALIGNMENT);
        if state.used + size > self.memory_bytes {
            state.exhausted = true;
            return Err(Error::OutOfMemory { bytes: bytes as u64 });
        }
        let address = state.next;
        // Never side by side: a pointer behind the end of one block is not the start of another.
        state.next += size + ALIGNMENT;
        state.used += size;
        state.peak = state.peak.max(state.used);
        state.blocks.insert(address, size);
        Ok(address)
    }

    fn free(&self, address: u64) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(size) = state.blocks.remove(&address) {
            state.used -= size;
        }
        state.sent.remove(&address);
        Ok(())
    }

    fn upload(&self, dst: u64, src: &[u8]) -> Result<(), Error> {
        if src.len() <= KEPT_BYTES {
            self.state().sent.insert(dst, src.into());
        }
        Ok(())
    }

    /// Ones as far as they are floats: numbers that a step can go on with.
    fn download(&self, dst: &mut [u8], _: u64) -> Result<(), Error> {
        for part in dst.chunks_mut(4) {
            part.copy_from_slice(&1.0_f32.to_ne_bytes()[..part.len()]);
        }
        Ok(())
    }

    fn copy(&self, dst: u64, src: u64, bytes: usize) -> Result<(), Error> {
        let bytes = bytes as u64;
        self.state().requests.push(Request::Copy { to: dst, from: src, bytes });
        Ok(())
    }

    fn copy_pieces(&self, dst: u64, to: Pieces, src: u64, from: Pieces) -> Result<(), Error> {
        self.copy(dst + to.start as u64, src + from.start as u64, from.bytes * from.count)
    }

    fn zero(&self, dst: u64, bytes: usize) -> Result<(), Error> {
        self.state().requests.push(Request::Zero { to: dst, bytes: bytes as u64 });
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }

    fn signature(&self, kernel: &str) -> Result<Signature, Error> {
        ptx::entry(kernel).map(|entry| entry.signature.clone())
    }

    fn launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error> {
        let mut state = self.state();
        let known = args.iter().filter_map(|arg| {
            let Arg::Ptr(address) = arg else { return None };
            let (&start, bytes) = state.sent.range(..=address).next_back()?;
            let inside = *address < start + bytes.len() as u64;
            inside.then(|| Known { address: start, bytes: Arc::clone(bytes) })
        });
        let known = known.collect();
        let request = Launched { kernel, launch, args: args.to_vec(), known };
        state.requests.push(Request::Launch(request));
        Ok(())
    }
}
