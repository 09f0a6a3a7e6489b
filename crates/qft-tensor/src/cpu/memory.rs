//! Host memory of buffers: large blocks on huge pages, and blocks that are kept for reuse.

use crate::buffer::{CacheLine, Storage};
use crate::ledger::GRANULE_BYTES;
use crate::{DeviceKind, Owner};
use memmap2::{MmapMut, MmapOptions};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// From this size on a block has pages of its own, huge ones where the system has them: products and passes over
/// large buffers otherwise spend a tenth of their time on address translation.
const MAPPED_BYTES: usize = 1 << 20;

/// The memory of one block.
enum Block {
    Heap(Box<[CacheLine]>),
    Mapped(MmapMut),
}

impl Block {
    /// A block of zeros, or nothing if there is no memory left.
    fn new(bytes: usize) -> Option<Self> {
        if bytes < MAPPED_BYTES {
            let lines = bytes / GRANULE_BYTES as usize;
            return bytemuck::try_zeroed_slice_box(lines).ok().map(Self::Heap);
        }
        let map = MmapOptions::new().len(bytes).map_anon().ok()?;
        // A wish only: without huge pages everything works, more slowly.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Self::Mapped(map))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(lines) => bytemuck::cast_slice(lines),
            Self::Mapped(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(lines) => bytemuck::cast_slice_mut(lines),
            Self::Mapped(map) => map,
        }
    }
}

/// Blocks given back by pooled owners, by size in bytes.
#[derive(Default)]
pub(super) struct FreeBlocks(Mutex<HashMap<usize, Vec<Block>>>);

impl FreeBlocks {
    fn with<R>(&self, f: impl FnOnce(&mut HashMap<usize, Vec<Block>>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A block of `bytes`: with `reuse` a kept one, else a new one of zeros. Nothing if there is no memory left.
    pub(super) fn take(
        self: &Arc<Self>,
        bytes: usize,
        owner: Owner,
        reuse: bool,
    ) -> Option<HostBlock> {
        let kept =
            if reuse { self.with(|free| free.get_mut(&bytes).and_then(Vec::pop)) } else { None };
        let block = match kept {
            Some(block) => block,
            None => Block::new(bytes)?,
        };
        let home = owner.is_pooled().then(|| Arc::clone(self));
        Some(HostBlock { block: Some(block), home })
    }

    /// Returns all kept blocks to the system.
    pub(super) fn clear(&self) {
        self.with(HashMap::clear);
    }
}

/// A block in use.
pub(super) struct HostBlock {
    /// Present until dropped.
    block: Option<Block>,
    /// Where the block goes when dropped; absent for states, whose memory returns to the system.
    home: Option<Arc<FreeBlocks>>,
}

impl Drop for HostBlock {
    fn drop(&mut self) {
        if let (Some(home), Some(block)) = (self.home.take(), self.block.take()) {
            home.with(|free| free.entry(block.bytes().len()).or_default().push(block));
        }
    }
}

impl fmt::Debug for HostBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostBlock({} bytes)", self.host().map_or(0, <[u8]>::len))
    }
}

impl Storage for HostBlock {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cpu
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn host(&self) -> Option<&[u8]> {
        self.block.as_ref().map(Block::bytes)
    }
    fn host_mut(&mut self) -> Option<&mut [u8]> {
        self.block.as_mut().map(Block::bytes_mut)
    }
}
