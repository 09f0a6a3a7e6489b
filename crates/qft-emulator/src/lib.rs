//! Runs the CUDA kernels on the host: a [`Driver`] for tests without a GPU.
//!
//! The kernel sources are compiled by the host's C++ compiler against `emulate/emulate.h`, which supplies the language of
//! CUDA: each thread of a block is a fiber, blocks are spread over the processor's cores. Everything above the driver
//! (operations, launch arguments, grids, memory) is the code that drives a GPU.
//!
//! Found and reported as an error of the launch: accesses outside of an allocation, misaligned vector accesses, barriers
//! and warp-wide calls that not all threads reach, accesses of shared memory before the asynchronous copy's wait, what
//! products of warpgroups ask for (`emulate/warpgroup.cpp`), and races: accesses to the same byte, of shared or global memory,
//! that no barrier orders (`emulate/race_rules.h`). They are found whatever order the threads run in, where an input makes
//! them access the same byte. Warps run in an order shuffled by a seed. Fresh memory is full of 0xFF (NaN, -1), shared memory
//! of garbage. Not modelled: fences, which no kernel uses; ordinary writes that products of warpgroups read without a fence
//! of the async proxy; registers; time.

#![allow(unsafe_code)] // Calls of compiled kernels, and the memory that they see.

mod memory;
mod peers;

pub use peers::EmulatedPeers;

use memory::Memory;
use qft_cuda::{Arg, Driver, Error, Launch, MemoryInfo, Parameter, Properties, Signature, ptx};
use qft_tensor::Pieces;
use rayon::prelude::*;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

struct Entry {
    module: &'static str,
    name: &'static str,
    call: unsafe extern "C" fn(*const *mut c_void),
    parameters: unsafe extern "C" fn() -> *const c_char,
    threads: unsafe extern "C" fn() -> u32,
}

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

unsafe extern "C" {
    fn qft_emulate_start();
    fn qft_emulate_block(
        call: unsafe extern "C" fn(*const *mut c_void),
        arguments: *const *mut c_void,
        grid: *const u32,
        block: *const u32,
        block_index: *const u32,
        shared_bytes: u32,
        first_block: u64,
        seed: u64,
    ) -> *const c_char;
}

/// Every kernel entry that was compiled: its source file's stem and its name.
pub fn kernels() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENTRIES.iter().map(|entry| (entry.module, entry.name))
}

/// A GPU of sm_86's limits with as much memory as asked for.
pub struct Emulator {
    properties: Properties,
    memory: Mutex<Memory>,
    seed: u64,
    launches: AtomicU64,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Emulator {
    /// A device of `memory_bytes`; `seed` decides in which order warps run.
    pub fn new(memory_bytes: u64, seed: u64) -> Self {
        static START: Once = Once::new();
        // SAFETY: installs signal handlers, once.
        START.call_once(|| unsafe { qft_emulate_start() });
        let properties = Properties {
            name: "emulator".to_owned(),
            ordinal: 0,
            compute_capability: (8, 6),
            multiprocessors: 82,
            max_shared_bytes: 99 << 10,
        };
        Self {
            properties,
            memory: Mutex::new(Memory::new(memory_bytes)),
            seed,
            launches: AtomicU64::new(0),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(kernel: &str) -> Result<&'static Entry, Error> {
        ENTRIES
            .iter()
            .chain(FAULTY)
            .find(|entry| entry.name == kernel)
            .ok_or_else(|| Error::UnknownKernel { kernel: kernel.to_owned() })
    }
}

impl Driver for Emulator {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory_info(&self) -> Result<MemoryInfo, Error> {
        Ok(self.memory().info())
    }

    fn alloc(&self, bytes: usize) -> Result<u64, Error> {
        self.memory().alloc(bytes)
    }

    fn free(&self, address: u64) -> Result<(), Error> {
        self.memory().free(address)
    }

    fn upload(&self, dst: u64, src: &[u8]) -> Result<(), Error> {
        self.memory().bytes_mut(dst, src.len(), "upload")?.copy_from_slice(src);
        Ok(())
    }

    fn download(&self, dst: &mut [u8], src: u64) -> Result<(), Error> {
        dst.copy_from_slice(self.memory().bytes(src, dst.len(), "download")?);
        Ok(())
    }

    fn copy(&self, dst: u64, src: u64, bytes: usize) -> Result<(), Error> {
        let mut memory = self.memory();
        let copied = memory.bytes(src, bytes, "copy")?.to_vec();
        memory.bytes_mut(dst, bytes, "copy")?.copy_from_slice(&copied);
        Ok(())
    }

    fn copy_pieces(&self, dst: u64, to: Pieces, src: u64, from: Pieces) -> Result<(), Error> {
        let mut pieces = to.ranges().zip(from.ranges());
        pieces.try_for_each(|(to, from)| {
            self.copy(dst + to.start as u64, src + from.start as u64, from.len())
        })
    }

    fn zero(&self, dst: u64, bytes: usize) -> Result<(), Error> {
        self.memory().bytes_mut(dst, bytes, "zero")?.fill(0);
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }

    fn signature(&self, kernel: &str) -> Result<Signature, Error> {
        let entry = Self::entry(kernel)?;
        // SAFETY: the function returns a string with static lifetime.
        let letters = unsafe { CStr::from_ptr((entry.parameters)()) };
        let parameters = letters
            .to_bytes()
            .iter()
            .map(|letter| match letter {
                b'f' => Parameter::F32,
                b'w' => Parameter::B32,
                _ => Parameter::B64,
            })
            .collect();
        // SAFETY: the function returns a constant.
        let max_threads = unsafe { (entry.threads)() };
        // Thread-local variables here, of which only the PTX knows the size.
        let static_shared_bytes =
            ptx::entry(kernel).map_or(0, |entry| entry.signature.static_shared_bytes);
        Ok(Signature { parameters, max_threads, static_shared_bytes })
    }

    fn launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error> {
        let entry = Self::entry(kernel)?;
        let mut values: Vec<[u8; 8]> = args.iter().map(|arg| arg.to_bytes()).collect();
        let arguments = Arguments(values.iter_mut().map(|v| v.as_mut_ptr().cast()).collect());
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        let Launch { grid, block, shared_bytes } = launch;
        let [x, y, z] = grid.map(u64::from);
        // Numbers for the blocks, by which the race check tells launches apart; zero is none.
        static BLOCKS: AtomicU64 = AtomicU64::new(1);
        let first_block = BLOCKS.fetch_add(x * y * z, Ordering::Relaxed);
        let first_failure = (0..x * y * z).into_par_iter().find_map_any(|index| {
            let block_index =
                [(index % x) as u32, (index / x % y) as u32, (index / (x * y)) as u32];
            let seed = self.seed ^ (number << 32 | index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            // SAFETY: the arguments match the entry's signature (`Cuda::launch` compared them) and outlive the
            // call; addresses outside of the emulator's memory fault, and faults are reported.
            let message = unsafe {
                qft_emulate_block(
                    entry.call,
                    arguments.pointer(),
                    grid.as_ptr(),
                    block.as_ptr(),
                    block_index.as_ptr(),
                    shared_bytes,
                    first_block,
                    seed,
                )
            };
            // SAFETY: a message is a string that lives until this thread runs its next block.
            (!message.is_null())
                .then(|| unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned())
        });
        let failure = first_failure.or_else(|| self.memory().violation());
        match failure {
            None => Ok(()),
            Some(message) => Err(Error::Driver { call: kernel.to_owned(), message }),
        }
    }
}

/// Pointers to the values of a launch's arguments, read by all blocks.
struct Arguments(Vec<*mut c_void>);

impl Arguments {
    fn pointer(&self) -> *const *mut c_void {
        self.0.as_ptr()
    }
}

// SAFETY: kernels copy the values behind the pointers and never write to them.
unsafe impl Sync for Arguments {}
