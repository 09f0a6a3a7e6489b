//! How far the reading of data has come.

use crate::error::Result;
use std::cell::Cell;

/// Counts the bytes that are read of all files, and tells of them.
pub(super) struct Tally<'a> {
    done: Cell<u64>,
    total: u64,
    told: &'a dyn Fn(Progress) -> Result<()>,
}

/// Bytes that were read, as they lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So far.
    pub done: u64,
    /// In the end.
    pub total: u64,
}

impl<'a> Tally<'a> {
    pub(super) fn new(total: u64, told: &'a dyn Fn(Progress) -> Result<()>) -> Self {
        Self { done: Cell::new(0), total, told }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
    }

    /// Tells how far it is.
    ///
    /// Errors: those of who is told; reading ends then.
    pub(super) fn tell(&self) -> Result<()> {
        (self.told)(Progress { done: self.done.get().min(self.total), total: self.total })
    }
}
