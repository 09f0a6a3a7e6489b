//! Device memory of the emulator: host pages between pages that cannot be touched.

use qft_cuda::{Error, MemoryInfo};
use std::collections::BTreeMap;
use std::ptr::NonNull;

const PAGE_BYTES: usize = 4096;
/// Untouchable memory before and behind each block: a stray index of a row or two lands there.
const GUARD_BYTES: usize = 256 << 10;
/// Blocks start at multiples of this much and end at their guard page.
const GRANULE_BYTES: usize = 64;
/// What fresh memory holds: NaN as a float, -1 as an integer.
const FRESH: u8 = 0xFF;
/// What lies before a block on its first page.
const BEFORE: u8 = 0xEB;

unsafe extern "C" {
    fn qft_emulate_map(bytes: usize, guard: usize, before: usize) -> *mut u8;
    fn qft_emulate_unmap(inner: *mut u8, bytes: usize, guard: usize);
}

/// The pages of one allocation, which ends where they end.
struct Pages {
    inner: NonNull<u8>,
    bytes: usize,
    /// Bytes on the first page before the block starts.
    before: usize,
}

// SAFETY: the pages belong to this value alone.
unsafe impl Send for Pages {}

impl Pages {
    fn new(bytes: usize) -> Option<Self> {
        let size = bytes;
        let bytes = size.max(1).next_multiple_of(PAGE_BYTES);
        let before = bytes - size;
        // SAFETY: maps new pages, or returns null.
        let inner = NonNull::new(unsafe { qft_emulate_map(bytes, GUARD_BYTES, before) })?;
        Some(Self { inner, bytes, before })
    }

    fn all(&self) -> &[u8] {
        // SAFETY: `bytes` bytes from `inner` on are mapped until this value is dropped.
        unsafe { std::slice::from_raw_parts(self.inner.as_ptr(), self.bytes) }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `all`, and `self` is borrowed exclusively; kernels do not run meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.inner.as_ptr(), self.bytes) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with the same sizes.
        unsafe { qft_emulate_unmap(self.inner.as_ptr(), self.bytes, GUARD_BYTES) }
    }
}

/// All allocations, by address.
pub(crate) struct Memory {
    blocks: BTreeMap<u64, Pages>,
    total: u64,
    used: u64,
}

impl Memory {
    pub(crate) fn new(total: u64) -> Self {
        Self { blocks: BTreeMap::new(), total, used: 0 }
    }

    pub(crate) fn info(&self) -> MemoryInfo {
        MemoryInfo { free_bytes: self.total - self.used, total_bytes: self.total }
    }

    pub(crate) fn alloc(&mut self, bytes: usize) -> Result<u64, Error> {
        let size = bytes.next_multiple_of(GRANULE_BYTES);
        let exhausted = || Error::OutOfMemory { bytes: bytes as u64 };
        if size as u64 > self.total - self.used {
            return Err(exhausted());
        }
        let mut pages = Pages::new(size).ok_or_else(exhausted)?;
        let before = pages.before;
        let all = pages.all_mut();
        all[..before].fill(BEFORE);
        all[before..].fill(FRESH);
        let address = all.as_ptr() as u64 + before as u64;
        self.used += size as u64;
        self.blocks.insert(address, pages);
        Ok(address)
    }

    pub(crate) fn free(&mut self, address: u64) -> Result<(), Error> {
        let pages = self.blocks.remove(&address).ok_or_else(|| Error::Driver {
            call: "free".to_owned(),
            message: format!("{address:#x} is not the start of an allocation"),
        })?;
        self.used -= (pages.bytes - pages.before) as u64;
        Ok(())
    }

    /// `bytes` bytes from `address` on, which must lie within one allocation.
    pub(crate) fn bytes(&mut self, address: u64, bytes: usize, call: &str) -> Result<&[u8], Error> {
        self.bytes_mut(address, bytes, call).map(|bytes| &*bytes)
    }

    /// As [`Self::bytes`].
    pub(crate) fn bytes_mut(
        &mut self,
        address: u64,
        bytes: usize,
        call: &str,
    ) -> Result<&mut [u8], Error> {
        let found = self.blocks.range_mut(..=address).next_back();
        let range = found.and_then(|(&start, pages)| {
            let first = pages.before + (address - start) as usize;
            pages.all_mut().get_mut(first..first.checked_add(bytes)?)
        });
        range.ok_or_else(|| Error::Driver {
            call: call.to_owned(),
            message: format!("{bytes} bytes at {address:#x} are not within an allocation"),
        })
    }

    /// What a kernel wrote before the start of an allocation, if it did.
    pub(crate) fn violation(&self) -> Option<String> {
        self.blocks.iter().find_map(|(address, pages)| {
            pages.all()[..pages.before]
                .iter()
                .any(|&byte| byte != BEFORE)
                .then(|| format!("write before the start of the allocation at {address:#x}"))
        })
    }
}
