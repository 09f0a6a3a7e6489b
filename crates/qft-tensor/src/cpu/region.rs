//! Host memory that is reserved at once, and its parts.

#![allow(unsafe_code)] // Parts of one mapping, each of which one buffer writes.

use super::memory;
use crate::pool::Part;
use memmap2::MmapRaw;

/// Pages out of which buffers get parts.
pub(crate) struct HostRegion(MmapRaw);

impl HostRegion {
    /// Pages of zeros, or nothing if there is no memory left.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        memory::map(bytes).map(|map| Self(map.into()))
    }
}

impl Part<HostRegion> {
    /// Its bytes.
    pub(super) fn host(&self) -> &[u8] {
        let (start, len) = self.range();
        // SAFETY: `range` lies within the mapping, which lives as long as the part. No other part has a byte of it: the ledger's
        // arena gives a place again only after its registration is dropped, and a buffer drops its memory before that.
        unsafe { std::slice::from_raw_parts(self.region().0.as_ptr().add(start), len) }
    }

    /// Its bytes, for writing.
    pub(super) fn host_mut(&mut self) -> &mut [u8] {
        let (start, len) = self.range();
        // SAFETY: as in `host`, and the part is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.region().0.as_mut_ptr().add(start), len) }
    }

    /// Start and length in bytes.
    fn range(&self) -> (usize, usize) {
        let (start, len) = (self.offset() as usize, self.bytes() as usize);
        assert!(start + len <= self.region().0.len(), "the arena is as large as its region");
        (start, len)
    }
}
