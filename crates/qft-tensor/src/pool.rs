//! Memory that is kept for reuse: a region out of which buffers get parts, and blocks of exact sizes beside it.

use crate::Error;
use crate::ledger::{Ledger, Place, Registration};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What pooled owners give back, and the region that was reserved for them. `B` is a device's own kind of block, `R` that of a
/// region; the ledger of the same device says what is served out of which.
pub struct Pool<B, R> {
    /// Blocks by size in bytes.
    free: Mutex<HashMap<u64, Vec<B>>>,
    region: Mutex<Option<Arc<R>>>,
}

impl<B, R> Default for Pool<B, R> {
    fn default() -> Self {
        Self { free: Mutex::default(), region: Mutex::default() }
    }
}

impl<B, R> fmt::Debug for Pool<B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} blocks)", self.free().values().map(Vec::len).sum::<usize>())
    }
}

impl<B, R> Pool<B, R> {
    fn free(&self) -> MutexGuard<'_, HashMap<u64, Vec<B>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn region(&self) -> MutexGuard<'_, Option<Arc<R>>> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back the region, and takes one of `bytes` with `make` if that is not zero. [`Ledger::reserve`] hears of it.
    ///
    /// Errors: those of `make`, after which there is no region; [`Error::ArenaInUse`].
    pub fn reserve(
        &self,
        ledger: &Ledger,
        bytes: u64,
        make: impl FnOnce(u64) -> Result<R, Error>,
    ) -> Result<(), Error> {
        ledger.reserve(0)?;
        let mut region = self.region();
        *region = None;
        if bytes > 0 {
            *region = Some(Arc::new(make(bytes)?));
            ledger.reserve(bytes)?;
        }
        Ok(())
    }

    /// The memory for a registered buffer: where the ledger has put it, else what `make` gives.
    ///
    /// Errors: those of `make`.
    pub fn take<E>(
        self: &Arc<Self>,
        registration: &Registration,
        make: impl FnOnce(u64) -> Result<B, E>,
    ) -> Result<PooledBlock<B, R>, E> {
        let bytes = registration.bytes();
        let kept = match registration.place {
            Place::New => None,
            Place::Kept => self.free().get_mut(&bytes).and_then(Vec::pop),
            Place::Arena(offset) => match &*self.region() {
                Some(region) => {
                    let region = Arc::clone(region);
                    return Ok(PooledBlock::Part(Part { region, offset, bytes }));
                }
                None => None,
            },
        };
        let block = match kept {
            Some(block) => block,
            None => make(bytes)?,
        };
        let home = registration.owner().is_pooled().then(|| Arc::clone(self));
        Ok(PooledBlock::Own(OwnBlock { block: Some(block), bytes, home }))
    }

    /// Drops all kept blocks. The region stays.
    pub fn clear(&self) {
        let dropped = std::mem::take(&mut *self.free());
        drop(dropped);
    }
}

/// The memory of one buffer in use.
pub enum PooledBlock<B, R> {
    /// A block of its own.
    Own(OwnBlock<B, R>),
    /// A part of the region.
    Part(Part<R>),
}

impl<B, R> fmt::Debug for PooledBlock<B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(block) => write!(f, "a block of {} bytes", block.bytes),
            Self::Part(part) => {
                write!(f, "{} bytes of a region, from {} on", part.bytes, part.offset)
            }
        }
    }
}

/// A block in use.
pub struct OwnBlock<B, R> {
    /// Present until dropped.
    block: Option<B>,
    bytes: u64,
    /// Where the block goes when dropped; absent for states, whose memory returns to the system.
    home: Option<Arc<Pool<B, R>>>,
}

impl<B, R> OwnBlock<B, R> {
    /// The block itself; nothing only while it is dropped.
    pub fn get(&self) -> Option<&B> {
        self.block.as_ref()
    }

    /// The block itself; nothing only while it is dropped.
    pub fn get_mut(&mut self) -> Option<&mut B> {
        self.block.as_mut()
    }
}

impl<B, R> Drop for OwnBlock<B, R> {
    fn drop(&mut self) {
        if let (Some(home), Some(block)) = (self.home.take(), self.block.take()) {
            home.free().entry(self.bytes).or_default().push(block);
        }
    }
}

/// A part of a region, which no other has as long as the buffer's registration lives.
pub struct Part<R> {
    region: Arc<R>,
    offset: u64,
    bytes: u64,
}

impl<R> Part<R> {
    /// All of the region.
    pub fn region(&self) -> &R {
        &self.region
    }

    /// Where in the region it starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
