//! What the GPUs of a job exchange between their memories.

use crate::Error;
use qft_tensor::Traffic;
use std::fmt;
use std::ops::Range;

/// One exchange, by addresses of this GPU; see [`qft_tensor::collectives::Exchange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerExchange {
    /// Each of `len` u32 becomes the largest that any process has.
    Max {
        /// Where they are.
        values: u64,
        /// How many.
        len: usize,
    },
    /// Sums of i32, of which every process gets its part.
    Sum {
        /// `[size, len]`.
        shares: u64,
        /// `[len]`.
        sums: u64,
        /// Numbers of a part.
        len: usize,
    },
    /// Every process gets all bytes.
    Gather {
        /// Where they are.
        bytes: u64,
        /// What each process brings.
        parts: Vec<Range<usize>>,
    },
}

/// The other GPUs of a job: [`Nccl`](crate::Nccl), or the emulators of the tests.
pub trait Peers: fmt::Debug + Send + Sync {
    /// Starts an exchange behind the work that the GPU was given before; its number.
    ///
    /// Errors: [`Error::Nccl`], after which the job is lost.
    fn start(&self, exchange: PeerExchange) -> Result<u64, Error>;

    /// Waits for the end of the exchange of this number, which is under way.
    ///
    /// Errors: [`Error::Nccl`], after which the job is lost.
    fn wait(&self, number: u64) -> Result<(), Error>;

    /// Everything that was exchanged until now.
    fn traffic(&self) -> Traffic;
}
