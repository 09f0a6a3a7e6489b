//! Places in one reservation of memory: which bytes of it are in use. Pure book-keeping, the same on every device.

use std::collections::{BTreeMap, BTreeSet};

/// Places start at multiples of this many bytes: the alignment of CUDA's own allocations, and two lines of its caches.
pub const ALIGNMENT_BYTES: u64 = 256;

/// The free and the used bytes of a reservation.
///
/// A block takes the smallest hole that it fits into, and the end only if it fits into none. So where the same blocks come and
/// go in the same order, they have the same places however large the reservation is, and one of as many bytes as an arena
/// without a limit turned out to need is enough for them.
#[derive(Debug, Default)]
pub struct Arena {
    /// Bytes of the reservation; without a limit, as many as turn out to be needed.
    limit: Option<u64>,
    /// Free bytes before `end`, as start and length. No two of them touch each other or `end`.
    holes: BTreeMap<u64, u64>,
    /// The same, as length and start.
    by_len: BTreeSet<(u64, u64)>,
    /// Everything from here on is free.
    end: u64,
    /// The largest `end` there was.
    peak: u64,
}

impl Arena {
    /// An empty one of at most `limit` bytes, or of as many as turn out to be needed.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Bytes of the reservation, if it has a size.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Bytes of the reservation: the limit, or what has been needed until now.
    pub fn bytes(&self) -> u64 {
        self.limit.unwrap_or(self.peak)
    }

    /// Whether nothing is in use.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// The offset of a place for `bytes`, or nothing if there is none.
    pub fn take(&mut self, bytes: u64) -> Option<u64> {
        let bytes = place_bytes(bytes);
        if let Some(&(len, start)) = self.by_len.range((bytes, 0)..).next() {
            self.remove(start, len);
            if len > bytes {
                self.insert(start + bytes, len - bytes);
            }
            return Some(start);
        }
        let (start, end) = (self.end, self.end.checked_add(bytes)?);
        if self.limit.is_some_and(|limit| end > limit) {
            return None;
        }
        self.end = end;
        self.peak = self.peak.max(end);
        Some(start)
    }

    /// Frees the place at `start` that [`Self::take`] gave for `bytes`.
    pub fn give_back(&mut self, start: u64, bytes: u64) {
        let (mut start, mut end) = (start, start + place_bytes(bytes));
        if let Some(&len) = self.holes.get(&end) {
            self.remove(end, len);
            end += len;
        }
        if let Some((&before, &len)) = self.holes.range(..start).next_back()
            && before + len == start
        {
            self.remove(before, len);
            start = before;
        }
        if end == self.end {
            self.end = start;
        } else {
            self.insert(start, end - start);
        }
    }

    fn insert(&mut self, start: u64, len: u64) {
        self.holes.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn remove(&mut self, start: u64, len: u64) {
        self.holes.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

/// What a block of `bytes` takes: an empty one has a place of its own as well.
fn place_bytes(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(ALIGNMENT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: u64 = ALIGNMENT_BYTES;

    #[test]
    fn the_smallest_hole_is_taken_and_the_end_last() {
        let mut arena = Arena::new(Some(10 * A));
        let starts: Vec<_> = [3, 1, 2, 1].iter().map(|n| arena.take(n * A).unwrap()).collect();
        assert_eq!(starts, [0, 3 * A, 4 * A, 6 * A]);
        arena.give_back(0, 3 * A);
        arena.give_back(4 * A, 2 * A);
        assert_eq!(arena.take(2 * A), Some(4 * A), "the hole that it fits exactly");
        assert_eq!(arena.take(A + 1), Some(0), "what is not aligned takes a whole unit more");
        assert_eq!(arena.take(0), Some(2 * A), "nothing has a place too");
        assert_eq!(arena.take(4 * A), None, "beyond the limit");
        assert_eq!(arena.take(3 * A), Some(7 * A));
        assert_eq!(arena.bytes(), 10 * A);
    }

    #[test]
    fn neighbours_that_are_free_become_one() {
        let mut arena = Arena::new(None);
        for n in 0..4 {
            assert_eq!(arena.take(A), Some(n * A));
        }
        arena.give_back(0, A);
        arena.give_back(2 * A, A);
        arena.give_back(A, A);
        assert_eq!(arena.take(3 * A), Some(0));
        arena.give_back(0, 3 * A);
        arena.give_back(3 * A, A);
        assert!(arena.is_empty() && arena.holes.is_empty() && arena.by_len.is_empty());
        assert_eq!(arena.bytes(), 4 * A, "what was needed");
    }

    /// Blocks that come, by their bytes, and go, by their number among those that are there.
    fn any_blocks() -> impl Strategy<Value = Vec<(bool, u64, prop::sample::Index)>> {
        let one = (any::<bool>(), 0..20 * A, any::<prop::sample::Index>());
        prop::collection::vec(one, 0..200)
    }

    proptest! {
        #[test]
        fn places_never_overlap_and_all_is_one_at_the_end(blocks in any_blocks()) {
            let mut arena = Arena::new(None);
            let mut used: Vec<(u64, u64)> = Vec::new();
            let mut history = Vec::new();
            for (comes, bytes, index) in &blocks {
                if *comes || used.is_empty() {
                    let start = arena.take(*bytes).unwrap();
                    prop_assert_eq!(start % A, 0);
                    let end = start + bytes.max(&1);
                    for &(other, len) in &used {
                        prop_assert!(end <= other || other + len.max(1) <= start);
                    }
                    prop_assert!(end <= arena.bytes());
                    used.push((start, *bytes));
                    history.push(start);
                } else {
                    let (start, bytes) = used.swap_remove(index.index(used.len()));
                    arena.give_back(start, bytes);
                }
            }
            // The same again in no more than was needed: everything has its place again.
            let mut bounded = Arena::new(Some(arena.bytes()));
            let mut again: Vec<(u64, u64)> = Vec::new();
            let mut starts = history.iter();
            for (comes, bytes, index) in &blocks {
                if *comes || again.is_empty() {
                    let start = bounded.take(*bytes);
                    prop_assert_eq!(start.as_ref(), starts.next());
                    again.push((start.unwrap(), *bytes));
                } else {
                    let (start, bytes) = again.swap_remove(index.index(again.len()));
                    bounded.give_back(start, bytes);
                }
            }
            for (start, bytes) in used {
                arena.give_back(start, bytes);
            }
            prop_assert!(arena.is_empty() && arena.holes.is_empty() && arena.by_len.is_empty());
        }
    }
}
