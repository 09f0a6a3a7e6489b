//! Processes that work on one model together, and what they can exchange.

use crate::{Background, Error, Traffic};
use std::fmt;
use std::ops::Range;

/// The processes of a job, as one of them sees it.
///
/// All of them make the same calls in the same order, with lengths that fit; a call returns when this process has what it is
/// to get. Everything that is exchanged is bytes or whole numbers: no sum depends on who is where.
///
/// Errors of every call: [`Error::Communication`], after which the job is lost and no call may follow.
pub trait Communicator: Send + Sync + fmt::Debug {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sets each value to the largest that any process has in its place.
    fn max(&self, values: &mut [u32]) -> Result<(), Error>;

    /// Gives every process the whole of `bytes`, of which process `r` brings the part `parts[r]`. The parts do not overlap.
    fn gather(&self, bytes: &mut [u8], parts: &[Range<usize>]) -> Result<(), Error>;

    /// Sends the part `send_parts[r]` of `send` to process `r`, and receives from it the part `receive_parts[r]` of `receive`.
    fn exchange(
        &self,
        send: &[u8],
        send_parts: &[Range<usize>],
        receive: &mut [u8],
        receive_parts: &[Range<usize>],
    ) -> Result<(), Error>;

    /// What exchanges things while this process computes; needed where there are several processes.
    fn background(&self) -> Option<&Background> {
        None
    }

    /// Everything that this process has exchanged until now; nothing where that is not counted.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// Ends the job: all processes, now, with exit code 1. What is to be said of it has been said.
    fn abort(&self) -> !;
}

/// The part of `count` things that process `rank` of `size` has: as even as can be, in order.
pub fn part_of(count: usize, rank: usize, size: usize) -> Range<usize> {
    let start = |rank: usize| (count as u128 * rank as u128 / size as u128) as usize;
    start(rank)..start(rank + 1)
}

/// The process whose part thing `index` of `count` is in.
pub fn owner_of(index: usize, count: usize, size: usize) -> usize {
    (0..size).find(|&rank| part_of(count, rank, size).contains(&index)).unwrap_or(0)
}

/// The number that the first process has: all hear it.
///
/// Errors: [`Error::Communication`].
pub fn of_first(processes: &dyn Communicator, own: u32) -> Result<u32, Error> {
    let mut bytes = own.to_ne_bytes();
    bytes_of_first(processes, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Fills `bytes` with those of the first process.
///
/// Errors: [`Error::Communication`].
pub fn bytes_of_first(processes: &dyn Communicator, bytes: &mut [u8]) -> Result<(), Error> {
    let len = bytes.len();
    let parts: Vec<_> =
        (0..processes.size()).map(|rank| if rank == 0 { 0..len } else { len..len }).collect();
    processes.gather(bytes, &parts)
}

/// One process alone: it has all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn max(&self, _values: &mut [u32]) -> Result<(), Error> {
        Ok(())
    }

    fn gather(&self, _bytes: &mut [u8], _parts: &[Range<usize>]) -> Result<(), Error> {
        Ok(())
    }

    fn exchange(
        &self,
        send: &[u8],
        send_parts: &[Range<usize>],
        receive: &mut [u8],
        receive_parts: &[Range<usize>],
    ) -> Result<(), Error> {
        receive[receive_parts[0].clone()].copy_from_slice(&send[send_parts[0].clone()]);
        Ok(())
    }

    fn abort(&self) -> ! {
        std::process::exit(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_one_owner() {
        for (count, size) in [(0, 3), (2, 3), (7, 3), (8, 4), (1 << 40, 5)] {
            let ends: Vec<_> = (0..size).map(|rank| part_of(count, rank, size)).collect();
            assert_eq!((ends[0].start, ends[size - 1].end), (0, count));
            assert!(ends.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ends.iter().all(|part| part.len().abs_diff(count / size) <= 1));
            for index in [0, 1, 6].into_iter().filter(|&index| index < count) {
                assert!(ends[owner_of(index, count, size)].contains(&index));
            }
        }
    }
}
