//! Which rows of a matrix a process owns: of every 256 rows its part.
//!
//! Ownership does not follow the blocks in which gradients come, since these depend on the data; but as these are cut at
//! whole groups, or nearly, every block has about as many rows of each owner.

use crate::Communicator;
use crate::communicator::part_of;
use std::ops::Range;

/// Rows that are shared out together.
const GROUP: usize = 256;

/// The rows of a matrix `[N, K]` that one process owns. What belongs to rows of one owner alone is stored without the
/// others: a row's place there is the number of owned rows before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowShard {
    rows: usize,
    rank: usize,
    size: usize,
}

impl RowShard {
    /// All of `rows`.
    pub const fn whole(rows: usize) -> Self {
        Self { rows, rank: 0, size: 1 }
    }

    /// Those of `rows` that this process owns.
    pub fn of(processes: &dyn Communicator, rows: usize) -> Self {
        Self { rows, rank: processes.rank(), size: processes.size() }
    }

    /// Those of another process.
    #[must_use]
    pub fn of_rank(self, rank: usize) -> Self {
        Self { rank, ..self }
    }

    /// Whether there is one owner.
    pub fn is_whole(self) -> bool {
        self.size == 1
    }

    /// How many owners there are.
    pub fn owners(self) -> usize {
        self.size
    }

    /// How many rows are owned.
    pub fn len(self) -> usize {
        self.place(self.rows)
    }

    /// Whether none is owned.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The part of a group that is owned.
    fn of_group(self, group: usize) -> Range<usize> {
        let start = group * GROUP;
        let part = part_of(GROUP.min(self.rows.saturating_sub(start)), self.rank, self.size);
        start + part.start..start + part.end
    }

    /// The number of owned rows before `row`, which is the place of an owned one.
    pub fn place(self, row: usize) -> usize {
        if self.size == 1 {
            return row;
        }
        let (group, whole) = (row / GROUP, part_of(GROUP, self.rank, self.size).len());
        let here = self.of_group(group);
        group * whole + row.clamp(here.start, here.end) - here.start
    }

    /// The owned rows among `rows`, in runs, in order.
    pub fn pieces(self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let groups =
            if self.size == 1 { 0..1 } else { rows.start / GROUP..rows.end.div_ceil(GROUP) };
        let runs = groups.map(move |group| {
            let owned = if self.size == 1 { 0..self.rows } else { self.of_group(group) };
            owned.start.max(rows.start)..owned.end.min(rows.end)
        });
        runs.filter(|run| !run.is_empty())
    }

    /// Whether all of `rows` are owned.
    pub fn owns(self, rows: &Range<usize>) -> bool {
        self.pieces(rows.clone()).map(|piece| piece.len()).sum::<usize>() == rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_one_owner_and_one_place() {
        for (rows, size) in [(1, 2), (255, 3), (256, 2), (300, 3), (1000, 4), (513, 7)] {
            let mut owners = vec![0; rows];
            for rank in 0..size {
                let shard = RowShard { rows, rank, size };
                let mut place = 0;
                for piece in shard.pieces(0..rows) {
                    for row in piece {
                        owners[row] += 1;
                        assert_eq!(shard.place(row), place, "{rows} rows, {rank} of {size}");
                        place += 1;
                    }
                }
                assert_eq!(shard.len(), place);
                let cut: usize = [0..rows / 3, rows / 3..rows]
                    .into_iter()
                    .flat_map(|rows| shard.pieces(rows))
                    .map(|piece| piece.len())
                    .sum();
                assert_eq!(cut, place, "however it is cut");
            }
            assert!(owners.iter().all(|&owners| owners == 1), "{rows} rows, {size} owners");
        }
        let whole = RowShard::whole(10);
        assert!(whole.pieces(3..7).eq(std::iter::once(3..7)));
        assert!(whole.owns(&(0..10)) && whole.place(4) == 4 && whole.len() == 10);
        assert_eq!(whole.pieces(3..3).count(), 0);
    }
}
