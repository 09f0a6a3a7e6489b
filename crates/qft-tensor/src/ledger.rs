//! The memory ledger: who owns how many bytes, now and at the peak.

use crate::arena::Arena;
use crate::{DType, Error};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Dense INT8 (or reference float) weights.
    Weights,
    /// The low-order plane of the weights.
    Residual,
    /// Protected weights in 16-bit float, and their indices.
    Protected,
    /// Scales of the weights.
    Scales,
    /// Optimizer momentum and its scales.
    Momentum,
    /// Gradients of parameters.
    Gradients,
    /// What the forward pass keeps for the backward pass, and the residual stream.
    Activations,
    /// Logits blocks and other buffers of the loss.
    Loss,
    /// Temporaries of a single operation.
    Workspace,
    /// Token ids, targets and positions.
    Data,
    /// Blocks of weights and states on their way from or to files: mostly host memory, also beside a GPU.
    Loading,
    /// What is on its way between processes: host memory.
    Exchange,
}

impl Owner {
    /// All owners, in the order of reports.
    pub const ALL: [Self; 12] = [
        Self::Weights,
        Self::Residual,
        Self::Protected,
        Self::Scales,
        Self::Momentum,
        Self::Gradients,
        Self::Activations,
        Self::Loss,
        Self::Workspace,
        Self::Data,
        Self::Loading,
        Self::Exchange,
    ];

    /// The name used in reports and JSON keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Residual => "residual",
            Self::Protected => "outliers",
            Self::Scales => "scales",
            Self::Momentum => "momentum",
            Self::Gradients => "gradients",
            Self::Activations => "activations",
            Self::Loss => "loss",
            Self::Workspace => "workspace",
            Self::Data => "data",
            Self::Loading => "loading",
            Self::Exchange => "exchange",
        }
    }

    /// Whether buffers of this owner live as long as the model.
    pub const fn is_state(self) -> bool {
        matches!(
            self,
            Self::Weights | Self::Residual | Self::Protected | Self::Scales | Self::Momentum
        )
    }

    /// Whether buffers of this owner come back each step: their memory is kept, as parts of what was reserved for them or by
    /// exact size.
    ///
    /// States live as long as the model, and loading is over before the first step.
    pub const fn is_pooled(self) -> bool {
        !self.is_state() && !matches!(self, Self::Loading | Self::Exchange)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One buffer that is alive now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveBuffer {
    /// What it is for.
    pub owner: Owner,
    /// The name its allocator gave.
    pub name: &'static str,
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub len: usize,
    /// Bytes, rounded up to the allocation granularity.
    pub bytes: u64,
}

/// Bytes per owner, current and peak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryReport {
    /// `(owner, current bytes, peak bytes of this owner alone)`, in the order of [`Owner::ALL`].
    pub owners: Vec<(Owner, u64, u64)>,
    /// Bytes of all live buffers.
    pub current_bytes: u64,
    /// The largest value that `current_bytes` ever had.
    pub peak_bytes: u64,
    /// Bytes per owner at the moment of `peak_bytes`.
    pub at_peak: Vec<(Owner, u64)>,
    /// Bytes taken from the system: live buffers, freed ones kept for reuse, and all of the arena.
    pub reserved_bytes: u64,
    /// The largest value that `reserved_bytes` ever had.
    pub peak_reserved_bytes: u64,
    /// Bytes of the largest arena; of one without a limit, those that it turned out to need.
    pub arena_bytes: u64,
    /// How often memory was taken from the system: for a buffer, or for an arena.
    pub allocations: u64,
}

const N: usize = Owner::ALL.len();

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    live: BTreeMap<u64, LiveBuffer>,
    current: [u64; N],
    peak: [u64; N],
    at_peak: [u64; N],
    total: u64,
    total_peak: u64,
    reserved: u64,
    reserved_peak: u64,
    arena: Option<Arena>,
    /// Of the largest of the arenas before.
    arena_bytes: u64,
    allocations: u64,
    /// Freed blocks kept for reuse: size in bytes -> count.
    free: HashMap<u64, usize>,
}

impl State {
    /// Where the memory of a buffer of a pooled owner comes from.
    fn place(&mut self, bytes: u64) -> Place {
        if let Some(offset) = self.arena.as_mut().and_then(|arena| arena.take(bytes)) {
            return Place::Arena(offset);
        }
        match self.free.get_mut(&bytes) {
            Some(count) if *count > 0 => {
                *count -= 1;
                Place::Kept
            }
            _ => Place::New,
        }
    }

    /// More is taken from the system.
    fn take(&mut self, bytes: u64) {
        self.allocations += 1;
        self.reserved += bytes;
        self.reserved_peak = self.reserved_peak.max(self.reserved);
    }

    fn arena_bytes(&self) -> u64 {
        self.arena_bytes.max(self.arena.as_ref().map_or(0, Arena::bytes))
    }
}

/// Where the memory of a buffer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// From the system.
    New,
    /// It is a kept block of the same size.
    Kept,
    /// The arena has it at this offset in bytes.
    Arena(u64),
}

/// Counts every buffer of a device, by owner. Shared by a device and all its buffers.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

/// Allocations are multiples of this many bytes: a cache line, and the widest vector register.
pub const GRANULE_BYTES: u64 = 64;

/// A registered buffer; dropping it takes the buffer off the ledger.
#[derive(Debug)]
pub struct Registration {
    ledger: Arc<Ledger>,
    id: u64,
    owner: Owner,
    bytes: u64,
    pub(crate) place: Place,
}

impl Registration {
    /// Bytes of the block, a multiple of [`GRANULE_BYTES`].
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the buffer is for.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.ledger.lock();
        state.live.remove(&self.id);
        state.current[self.owner as usize] -= self.bytes;
        state.total -= self.bytes;
        match self.place {
            Place::Arena(offset) => {
                if let Some(arena) = &mut state.arena {
                    arena.give_back(offset, self.bytes);
                }
            }
            _ if self.owner.is_pooled() => *state.free.entry(self.bytes).or_insert(0) += 1,
            _ => state.reserved -= self.bytes,
        }
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The counters are consistent between statements, so a panic elsewhere cannot corrupt them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a buffer of `len` elements. Called by devices when they allocate.
    pub fn register(
        self: &Arc<Self>,
        owner: Owner,
        name: &'static str,
        dtype: DType,
        len: usize,
    ) -> Registration {
        let bytes = block_bytes(dtype, len);
        let mut guard = self.lock();
        let state = &mut *guard;
        let id = state.next_id;
        state.next_id += 1;
        state.live.insert(id, LiveBuffer { owner, name, dtype, len, bytes });
        state.current[owner as usize] += bytes;
        state.peak[owner as usize] = state.peak[owner as usize].max(state.current[owner as usize]);
        state.total += bytes;
        if state.total > state.total_peak {
            state.total_peak = state.total;
            state.at_peak = state.current;
        }
        let place = if owner.is_pooled() { state.place(bytes) } else { Place::New };
        if place == Place::New {
            state.take(bytes);
        }
        Registration { ledger: Arc::clone(self), id, owner, bytes, place }
    }

    /// Every buffer alive now, in order of allocation.
    pub fn live(&self) -> Vec<LiveBuffer> {
        self.lock().live.values().cloned().collect()
    }

    /// Current and peak bytes per owner.
    pub fn report(&self) -> MemoryReport {
        let state = self.lock();
        MemoryReport {
            owners: Owner::ALL
                .iter()
                .map(|&o| (o, state.current[o as usize], state.peak[o as usize]))
                .collect(),
            current_bytes: state.total,
            peak_bytes: state.total_peak,
            at_peak: Owner::ALL.iter().map(|&o| (o, state.at_peak[o as usize])).collect(),
            reserved_bytes: state.reserved,
            peak_reserved_bytes: state.reserved_peak,
            arena_bytes: state.arena_bytes(),
            allocations: state.allocations,
        }
    }

    /// From now on buffers of pooled owners have places in an arena of `bytes`; of zero, there is none. Called by devices, which
    /// have that memory.
    ///
    /// Errors: [`Error::ArenaInUse`] if buffers are in the last one.
    pub fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.replace_arena((bytes > 0).then(|| Arena::new(Some(bytes))))
    }

    /// The same, in an arena of as many bytes as they turn out to need, which are not counted as reserved: to find out how
    /// many they are.
    ///
    /// Errors: as [`Self::reserve`].
    pub fn measure_arena(&self) -> Result<(), Error> {
        self.replace_arena(Some(Arena::new(None)))
    }

    fn replace_arena(&self, arena: Option<Arena>) -> Result<(), Error> {
        let mut state = self.lock();
        if state.arena.as_ref().is_some_and(|arena| !arena.is_empty()) {
            return Err(Error::ArenaInUse);
        }
        state.arena_bytes = state.arena_bytes();
        state.reserved -= state.arena.as_ref().and_then(Arena::limit).unwrap_or(0);
        state.arena = arena;
        if let Some(bytes) = state.arena.as_ref().and_then(Arena::limit) {
            state.take(bytes);
        }
        Ok(())
    }

    /// Forgets kept blocks: called by the device that has returned them to the system.
    pub fn release_free(&self) {
        let mut state = self.lock();
        let freed: u64 = state.free.drain().map(|(bytes, count)| bytes * count as u64).sum();
        state.reserved -= freed;
    }
}

/// The bytes that a buffer of `len` elements takes, rounded up to [`GRANULE_BYTES`].
pub fn block_bytes(dtype: DType, len: usize) -> u64 {
    (len as u64 * dtype.size_bytes() as u64).next_multiple_of(GRANULE_BYTES)
}
