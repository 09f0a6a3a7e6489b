//! Parts of a buffer, taken apart into the pieces of rounds and laid side by side.
//!
//! Every exchange goes through buffers of its own: MPI may touch them until an operation ends, and one that never ends must
//! not have the caller's memory. It also makes parts contiguous, and keeps counts small, which MPI has as `int`.

use std::ffi::c_int;
use std::ops::Range;

/// Bytes that a round brings a process from all of them together.
const ROUND_BYTES: usize = 4 << 20;

/// Bytes of a piece that are worth a message, however many processes there are.
const MIN_PIECE_BYTES: usize = 16 << 10;

/// Values of which a round finds the largest.
pub(crate) const ROUND_VALUES: usize = ROUND_BYTES / size_of::<u32>();

/// Rounds that are under way: one is filled or emptied while MPI has the other.
pub(crate) const ROUNDS_UNDER_WAY: usize = 2;

/// Most bytes of a part that go in a round, of a job of `size` processes.
pub(crate) fn piece_bytes(size: usize) -> usize {
    (ROUND_BYTES / size).max(MIN_PIECE_BYTES)
}

/// Most bytes that a process of a job of `size` holds to exchange something, beside what MPI itself does.
pub fn staging_bytes(size: usize) -> u64 {
    // Of each round what is sent and what is received, and the first round's four bytes for each process.
    (ROUNDS_UNDER_WAY * 2 * size * (piece_bytes(size) + size_of::<u32>())) as u64
}

/// How many rounds the longest of `parts` needs.
pub(crate) fn rounds(parts: &[Range<usize>], piece: usize) -> usize {
    parts.iter().map(|part| part.len().div_ceil(piece)).max().unwrap_or(0)
}

/// What goes of `part` in a round; nothing, after its last.
pub(crate) fn piece_of(part: &Range<usize>, round: usize, piece: usize) -> Range<usize> {
    let start = (part.start + round * piece).min(part.end);
    start..(start + piece).min(part.end)
}

/// Bytes of or for every process, one behind the other.
#[derive(Debug)]
pub(crate) struct Packed {
    /// All of them.
    pub(crate) bytes: Vec<u8>,
    /// How many of each process.
    pub(crate) counts: Vec<c_int>,
    /// Where they begin.
    pub(crate) starts: Vec<c_int>,
}

impl Packed {
    /// Room for so many bytes of each process, in memory that holds whatever was there before.
    pub(crate) fn with_room(memory: Vec<u8>, lengths: impl Iterator<Item = usize>) -> Self {
        let mut packed = Self { bytes: memory, counts: Vec::new(), starts: Vec::new() };
        let mut end = 0;
        for length in lengths {
            packed.starts.push(count(end));
            packed.counts.push(count(length));
            end += length;
        }
        packed.bytes.resize(end, 0);
        packed
    }

    /// The bytes of a process.
    pub(crate) fn of(&self, rank: usize) -> &[u8] {
        &self.bytes[self.range(rank)]
    }

    /// The bytes of a process, to be filled.
    pub(crate) fn of_mut(&mut self, rank: usize) -> &mut [u8] {
        let range = self.range(rank);
        &mut self.bytes[range]
    }

    fn range(&self, rank: usize) -> Range<usize> {
        let start = self.starts[rank] as usize;
        start..start + self.counts[rank] as usize
    }
}

/// As MPI counts. A round has some megabytes, or 16 KiB a process.
fn count(length: usize) -> c_int {
    c_int::try_from(length).expect("a round fits an int for fewer than 131,072 processes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_up_their_part() {
        let part = 100..123;
        let pieces: Vec<_> = (0..4).map(|round| piece_of(&part, round, 10)).collect();
        assert_eq!(pieces, [100..110, 110..120, 120..123, 123..123]);
        assert_eq!(rounds(&[part, 5..5], 10), 3);
        assert_eq!(rounds(&[5..5, 9..9], 10), 0);
        assert_eq!(rounds(&[], 10), 0);
        assert_eq!(piece_of(&(7..7), 0, 10), 7..7);
    }

    #[test]
    fn rooms_lie_side_by_side() {
        let mut packed = Packed::with_room(Vec::new(), [3, 0, 2].into_iter());
        assert_eq!((packed.bytes.len(), &packed.starts[..]), (5, &[0, 3, 3][..]));
        packed.of_mut(2).copy_from_slice(&[1, 2]);
        assert_eq!(packed.bytes, [0, 0, 0, 1, 2]);
        assert!(packed.of(1).is_empty());
        let packed = Packed::with_room(packed.bytes, [1].into_iter());
        assert_eq!((packed.bytes.len(), &packed.counts[..]), (1, &[1][..]));
    }

    #[test]
    fn staging_is_small() {
        assert_eq!(piece_bytes(2), 2 << 20);
        assert_eq!(piece_bytes(4096), 16 << 10);
        assert!(staging_bytes(2) <= (16 << 20) + 64);
    }
}
