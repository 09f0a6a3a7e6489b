//! Host memory of buffers: large blocks on huge pages.

use super::region::HostRegion;
use crate::DeviceKind;
use crate::buffer::{CacheLine, Storage};
use crate::ledger::GRANULE_BYTES;
use crate::pool::PooledBlock;
use memmap2::{MmapMut, MmapOptions};
use std::any::Any;

/// From this size on a block has pages of its own, huge ones where the system has them: products and passes over
/// large buffers otherwise spend a tenth of their time on address translation.
const MAPPED_BYTES: usize = 1 << 20;

/// The memory of one block.
pub(super) enum HostPages {
    Heap(Box<[CacheLine]>),
    Mapped(MmapMut),
}

impl HostPages {
    /// A block of zeros, or nothing if there is no memory left.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        if bytes < MAPPED_BYTES {
            let lines = bytes / GRANULE_BYTES as usize;
            return bytemuck::try_zeroed_slice_box(lines).ok().map(Self::Heap);
        }
        map(bytes).map(Self::Mapped)
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

/// Pages of zeros, huge ones where the system has them, or nothing if there is no memory left.
pub(super) fn map(bytes: usize) -> Option<MmapMut> {
    let map = MmapOptions::new().len(bytes).map_anon().ok()?;
    // A wish only: without huge pages everything works, more slowly.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

/// The memory of a buffer in use.
pub(super) type HostBlock = PooledBlock<HostPages, HostRegion>;

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
        match self {
            Self::Own(block) => block.get().map(HostPages::bytes),
            Self::Part(part) => Some(part.host()),
        }
    }
    fn host_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Own(block) => block.get_mut().map(HostPages::bytes_mut),
            Self::Part(part) => Some(part.host_mut()),
        }
    }
}
