//! Host memory on the ledger: blocks of values on their way between files and a device, or between processes.

use crate::ledger::Registration;
use crate::{Element, Ledger, Owner};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Values on the host, counted in a device's ledger as long as they live.
#[derive(Debug)]
pub struct Transfer<T: Element> {
    values: Vec<T>,
    _registration: Registration,
}

impl<T: Element> Transfer<T> {
    /// `len` zeros on their way from or to files, [`Owner::Loading`]. Pages that are never written to take no memory of the
    /// machine.
    pub fn zeroed(ledger: &Arc<Ledger>, name: &'static str, len: usize) -> Self {
        Self::of(Owner::Loading, ledger, name, len)
    }

    /// `len` zeros on their way between processes, [`Owner::Exchange`].
    pub fn between_processes(ledger: &Arc<Ledger>, name: &'static str, len: usize) -> Self {
        Self::of(Owner::Exchange, ledger, name, len)
    }

    /// As [`between_processes`](Self::between_processes) where memory is counted: on the ledger, and empty.
    pub fn planned(ledger: &Arc<Ledger>, name: &'static str, len: usize) -> Self {
        let registration = ledger.register(Owner::Exchange, name, T::DTYPE, len);
        Self { values: Vec::new(), _registration: registration }
    }

    /// A copy of these parts, one behind the other.
    pub fn joined<'a>(
        owner: Owner,
        ledger: &Arc<Ledger>,
        name: &'static str,
        parts: impl Iterator<Item = &'a [T]> + Clone,
    ) -> Self {
        let len = parts.clone().map(<[T]>::len).sum();
        let registration = ledger.register(owner, name, T::DTYPE, len);
        let mut values = Vec::with_capacity(len);
        parts.for_each(|part| values.extend_from_slice(part));
        Self { values, _registration: registration }
    }

    fn of(owner: Owner, ledger: &Arc<Ledger>, name: &'static str, len: usize) -> Self {
        let registration = ledger.register(owner, name, T::DTYPE, len);
        Self { values: vec![T::zeroed(); len], _registration: registration }
    }
}

impl<T: Element> Deref for Transfer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T: Element> DerefMut for Transfer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}
