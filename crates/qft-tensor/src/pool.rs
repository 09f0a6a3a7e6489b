//! Blocks of memory that are kept for reuse, by exact size.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks given back by pooled owners, by size in bytes. `B` is a device's own kind of block.
pub struct FreeBlocks<B>(Mutex<HashMap<u64, Vec<B>>>);

impl<B> Default for FreeBlocks<B> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<B> fmt::Debug for FreeBlocks<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FreeBlocks({})", self.with(|free| free.values().map(Vec::len).sum::<usize>()))
    }
}

impl<B> FreeBlocks<B> {
    fn with<R>(&self, f: impl FnOnce(&mut HashMap<u64, Vec<B>>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The block for a registered buffer: a kept one where the ledger counted on it, else what `make` gives.
    ///
    /// Errors: those of `make`.
    pub fn take<E>(
        self: &Arc<Self>,
        registration: &crate::ledger::Registration,
        make: impl FnOnce(u64) -> Result<B, E>,
    ) -> Result<PooledBlock<B>, E> {
        let bytes = registration.bytes();
        let kept = if registration.reuse {
            self.with(|free| free.get_mut(&bytes).and_then(Vec::pop))
        } else {
            None
        };
        let block = match kept {
            Some(block) => block,
            None => make(bytes)?,
        };
        let home = registration.owner().is_pooled().then(|| Arc::clone(self));
        Ok(PooledBlock { block: Some(block), bytes, home })
    }

    /// Drops all kept blocks.
    pub fn clear(&self) {
        let dropped = self.with(std::mem::take);
        drop(dropped);
    }
}

/// A block in use.
pub struct PooledBlock<B> {
    /// Present until dropped.
    block: Option<B>,
    bytes: u64,
    /// Where the block goes when dropped; absent for states, whose memory returns to the system.
    home: Option<Arc<FreeBlocks<B>>>,
}

impl<B> PooledBlock<B> {
    /// The block itself; nothing only while it is dropped.
    pub fn get(&self) -> Option<&B> {
        self.block.as_ref()
    }

    /// The block itself; nothing only while it is dropped.
    pub fn get_mut(&mut self) -> Option<&mut B> {
        self.block.as_mut()
    }
}

impl<B> Drop for PooledBlock<B> {
    fn drop(&mut self) {
        if let (Some(home), Some(block)) = (self.home.take(), self.block.take()) {
            home.with(|free| free.entry(self.bytes).or_default().push(block));
        }
    }
}

impl<B> fmt::Debug for PooledBlock<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledBlock({} bytes)", self.bytes)
    }
}
