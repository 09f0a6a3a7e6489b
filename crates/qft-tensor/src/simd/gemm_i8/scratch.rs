//! Memory for packed operands, kept between calls: after the first call of a shape nothing is allocated.

use crate::buffer::CacheLine;
use bytemuck::Zeroable;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

const LINE: usize = size_of::<CacheLine>();

/// Bytes on a cache line boundary.
#[derive(Default)]
pub(super) struct Lines(Vec<CacheLine>);

impl Lines {
    /// The first `len` bytes, with unspecified values.
    pub(super) fn bytes(&mut self, len: usize) -> &mut [u8] {
        let lines = len.div_ceil(LINE);
        if self.0.len() < lines {
            self.0.clear();
            self.0.reserve_exact(lines);
            self.0.resize(lines, CacheLine::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
}

/// What one thread needs for one block of the result.
#[derive(Default)]
pub(super) struct Leaf {
    /// Packed panels of the first operand.
    pub(super) a: Lines,
    /// What each of its rows adds to every sum.
    pub(super) bias: Vec<i32>,
    /// Unfinished sums, as `i32`, when the contraction is cut.
    pub(super) sums: Lines,
}

/// Blocks for packed second operands; more than one only if products ran at the same time.
static SHARED: Mutex<Vec<Lines>> = Mutex::new(Vec::new());

thread_local! {
    static LEAF: RefCell<Leaf> = RefCell::default();
}

/// Calls `f` with a block that all threads of one product read.
pub(super) fn with_shared<R>(f: impl FnOnce(&mut Lines) -> R) -> R {
    let pool = || SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = pool().pop();
    let mut lines = kept.unwrap_or_default();
    let result = f(&mut lines);
    pool().push(lines);
    result
}

/// Calls `f` with this thread's own memory. `f` must not wait for other tasks: while it did, this thread
/// could be given a task that asks for the same memory.
pub(super) fn with_leaf<R>(f: impl FnOnce(&mut Leaf) -> R) -> R {
    LEAF.with_borrow_mut(f)
}
