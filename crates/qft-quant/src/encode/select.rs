//! Which weights are protected: the largest magnitudes of the matrix, found without sorting it.

use crate::protected::{BLOCK_COLS, MAX_PER_BLOCK};
use qft_tensor::ledger::Registration;
use qft_tensor::{DType, Host, Kernel, Ledger, Owner};
use rayon::prelude::*;
use std::sync::Arc;

/// Magnitudes are told apart by their exponent and 8 bits of mantissa.
const BINS: usize = 1 << 16;

/// The sign bit is dropped, and the lower 15 bits of the mantissa.
const BIN_SHIFT: u32 = 15;

/// Weights handled between two tests of "is there any candidate at all".
const GROUP: usize = 32;

/// Shares that a block of rows is counted in: fewer than many a machine has threads, but half a megabyte each, and reading
/// the rows takes longer.
const SHARES: usize = 4;

#[inline(always)]
fn magnitude(w: f32) -> u32 {
    w.to_bits() & 0x7FFF_FFFF
}

/// Counts of the magnitudes of a matrix; small magnitudes are left out once they are sure to be below the
/// threshold.
pub(super) struct Histogram {
    /// One histogram per share of a block of rows; their sum is meant.
    parts: Vec<Vec<u64>>,
    /// Weights to protect.
    budget: u64,
    /// Bins below are out of the race, whatever is still to come.
    floor: u32,
    _registration: Registration,
}

/// Protected are all weights in bins above `bin`, and the first `quota` in `bin`, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Threshold {
    pub(super) bin: u32,
    pub(super) quota: u64,
}

impl Threshold {
    /// No protected weight is smaller; infinite or NaN if none is protected.
    pub(super) fn least(&self) -> f32 {
        f32::from_bits(self.bin.min(BINS as u32 - 1) << BIN_SHIFT)
    }
}

impl Histogram {
    pub(super) fn new(ledger: &Arc<Ledger>, budget: usize) -> Self {
        let parts = vec![vec![0; BINS]; SHARES];
        let bytes = parts.len() * BINS * size_of::<u64>();
        let registration = ledger.register(Owner::Loading, "magnitudes", DType::U8, bytes);
        // Bin 0 is zero and the smallest subnormals: protecting them gains nothing.
        Self { parts, budget: budget as u64, floor: 1, _registration: registration }
    }

    /// Adds some weights of the matrix. Their order does not matter.
    pub(super) fn add(&mut self, host: &Host, weights: &[f32]) {
        let share = weights.len().div_ceil(self.parts.len()).max(1);
        let (floor, isa) = (self.floor, host.isa());
        let tasks = self.parts.par_iter_mut().zip(weights.par_chunks(share));
        host.for_each(tasks, |(bins, weights)| {
            isa.run(Count { weights, floor, bins });
        });
        self.floor = self.floor.max(self.threshold().bin);
    }

    /// The threshold for everything added so far.
    pub(super) fn threshold(&self) -> Threshold {
        let mut left = self.budget;
        for bin in (1..BINS).rev() {
            let count: u64 = self.parts.iter().map(|bins| bins[bin]).sum();
            if count >= left {
                return Threshold { bin: bin as u32, quota: left };
            }
            left -= count;
        }
        Threshold { bin: 1, quota: left }
    }
}

struct Count<'a> {
    weights: &'a [f32],
    floor: u32,
    bins: &'a mut [u64],
}

impl Kernel for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for_each_from(self.weights, self.floor, |_, bin| self.bins[bin as usize] += 1);
    }
}

/// Calls `f(index, bin)` for every weight in bin `floor` or above.
#[inline(always)]
fn for_each_from(weights: &[f32], floor: u32, mut f: impl FnMut(usize, u32)) {
    let least = floor << BIN_SHIFT;
    let (groups, tail) = weights.as_chunks::<GROUP>();
    for (g, group) in groups.iter().enumerate() {
        let mut largest = 0;
        for &w in group {
            largest = largest.max(magnitude(w));
        }
        if largest >= least {
            for (i, &w) in group.iter().enumerate() {
                if magnitude(w) >= least {
                    f(g * GROUP + i, magnitude(w) >> BIN_SHIFT);
                }
            }
        }
    }
    for (i, &w) in tail.iter().enumerate() {
        if magnitude(w) >= least {
            f(groups.len() * GROUP + i, magnitude(w) >> BIN_SHIFT);
        }
    }
}

/// The columns of one row that reach the threshold's bin.
#[derive(Default)]
pub(super) struct Candidates {
    /// Column, and whether it is in the threshold's own bin.
    found: Vec<(u32, bool)>,
}

/// Collects the [`Candidates`] of a row.
pub(super) struct Collect<'a> {
    pub(super) row: &'a [f32],
    pub(super) threshold: Threshold,
    pub(super) into: &'a mut Candidates,
}

impl Kernel for Collect<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let found = &mut self.into.found;
        found.clear();
        for_each_from(self.row, self.threshold.bin, |col, bin| {
            found.push((col as u32, bin == self.threshold.bin));
        });
    }
}

impl Candidates {
    /// Drops those beyond the quota, which shrinks by those that stay, and those that find their block of 256
    /// columns full.
    pub(super) fn settle(&mut self, quota: &mut u64) {
        let (mut block, mut in_block) = (0, 0);
        self.found.retain(|&(col, boundary)| {
            if col as usize / BLOCK_COLS != block {
                (block, in_block) = (col as usize / BLOCK_COLS, 0);
            }
            let keep = in_block < MAX_PER_BLOCK && !(boundary && *quota == 0);
            if keep {
                in_block += 1;
                *quota -= u64::from(boundary);
            }
            keep
        });
    }

    /// Columns in rising order.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        self.found.iter().map(|&(col, _)| col as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_tensor::{CpuConfig, Isa};

    fn host() -> Host {
        Host::new(CpuConfig { threads: 1, isa: Isa::SCALAR }).unwrap()
    }

    #[test]
    fn the_threshold_leaves_exactly_the_budget() {
        let weights: Vec<f32> = (0..10_000).map(|i| ((i * 7919) % 10_007) as f32).collect();
        let host = host();
        for budget in [1, 10, 1000, 9999] {
            let mut histogram = Histogram::new(&Arc::default(), budget);
            for part in weights.chunks(777) {
                histogram.add(&host, part);
            }
            let Threshold { bin, quota } = histogram.threshold();
            let (mut above, mut equal) = (0, 0);
            for_each_from(&weights, bin, |_, b| if b > bin { above += 1 } else { equal += 1 });
            assert!(quota <= equal, "budget {budget}");
            assert_eq!(above + quota, budget as u64);
        }
    }

    #[test]
    fn zeros_are_never_protected() {
        let mut histogram = Histogram::new(&Arc::default(), 5);
        let weights = [0.0, -0.0, 1.0, 0.0, -2.0, 0.0, 0.0];
        histogram.add(&host(), &weights);
        let threshold = histogram.threshold();
        let mut candidates = Candidates::default();
        Collect { row: &weights, threshold, into: &mut candidates }.run();
        let mut quota = threshold.quota;
        candidates.settle(&mut quota);
        assert_eq!(candidates.columns().collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn a_block_holds_255() {
        let row = [1.0; 520];
        let threshold = Threshold { bin: 1.0f32.to_bits() >> BIN_SHIFT, quota: 300 };
        let mut candidates = Candidates::default();
        Collect { row: &row, threshold, into: &mut candidates }.run();
        let mut quota = threshold.quota;
        candidates.settle(&mut quota);
        let want: Vec<usize> = (0..255).chain(256..301).collect();
        assert_eq!(candidates.columns().collect::<Vec<_>>(), want);
        assert_eq!(quota, 0);
    }
}
