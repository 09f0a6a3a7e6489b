//! How long a launch takes: as long as whatever of the card it needs longest.

use super::cards::Card;
use super::resources::{Counts, Resource};
use super::work::Work;

/// The part of what copying reaches that kernels reach of the memory.
const MEMORY_SHARE: f64 = 0.85;
/// The part of its slots in which a scheduler finds a warp that can go on.
const ISSUE_SHARE: f64 = 0.75;
/// The part of the peak that tensor cores reach in the middle of a product.
const PRODUCT_SHARE: f64 = 0.8;
/// Bytes that a multiprocessor of any card moves in a cycle between its products, when it waits for nothing else.
const TAIL_BYTES_PER_CYCLE: f64 = 24.0;
/// From the end of a launch to the beginning of one that waits for it.
pub(super) const GAP_SECONDS: f64 = 2e-6;
/// Shared memory that a multiprocessor keeps of each block, and beside all of them.
const RESERVED_SHARED_BYTES: u32 = 1 << 10;

/// What a launch is held up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Memory,
    Cache,
    Unit(Resource),
}

/// The time of a launch, without the gap before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    pub(super) seconds: f64,
    pub(super) bound: Bound,
}

/// The time of a launch on a card.
pub(super) fn time(card: &Card, work: &Work) -> Time {
    let bytes: f64 = work.traffic.iter().map(|t| t.read_bytes + t.written_bytes).sum();
    let memory = bytes / (card.copy_bytes_per_second * MEMORY_SHARE);
    let reads: f64 = work
        .traffic
        .iter()
        .filter(|t| t.block_written_bytes == 0.0)
        .map(|t| t.block_read_bytes)
        .sum();
    // What is written, and what it is added to.
    let results: f64 = (work.traffic.iter().filter(|t| t.block_written_bytes > 0.0))
        .map(|t| t.block_read_bytes + t.block_written_bytes)
        .sum();
    let (cycles, bound) =
        if work.main.products() > 0.0 && resident(card, work) == 1 && !work.overlapped {
            let (main, bound) = cycles(card, &work.main, reads, card.cache_bytes_per_cycle);
            (main + cycles(card, &work.tail, results, TAIL_BYTES_PER_CYCLE).0, bound)
        } else {
            cycles(card, &(work.main + work.tail), reads + results, card.cache_bytes_per_cycle)
        };
    let in_turn = (work.blocks / f64::from(card.multiprocessors)).ceil();
    let compute = in_turn * cycles / card.hertz;
    if memory >= compute {
        return Time { seconds: memory, bound: Bound::Memory };
    }
    Time { seconds: compute, bound }
}

/// Cycles of a multiprocessor for what a block takes.
fn cycles(card: &Card, counts: &Counts, bytes: f64, bytes_per_cycle: f64) -> (f64, Bound) {
    let share = |resource: Resource| match resource {
        resource if resource.is_product() => PRODUCT_SHARE,
        Resource::Shared => PRODUCT_SHARE,
        _ => ISSUE_SHARE,
    };
    Resource::ALL
        .iter()
        .map(|&unit| (counts.of(unit) / (card.rate(unit) * share(unit)), Bound::Unit(unit)))
        .fold(
            (bytes / bytes_per_cycle, Bound::Cache),
            |most, one| if one.0 > most.0 { one } else { most },
        )
}

/// Blocks of a launch that a multiprocessor holds at a time, by threads and shared memory.
fn resident(card: &Card, work: &Work) -> u32 {
    let threads = (work.launch.threads() as u32).max(1);
    let shared = work.launch.shared_bytes + RESERVED_SHARED_BYTES;
    let room = card.max_shared_bytes + RESERVED_SHARED_BYTES;
    (card.threads / threads).min(room / shared).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::cards::CARDS;
    use super::super::work::Traffic;
    use super::*;
    use qft_cuda::Launch;

    /// A launch of 132 blocks, each of these counts, on the first card.
    fn work(main: Counts, tail: Counts, read_bytes: f64) -> Work {
        Work {
            kernel: "any",
            launch: Launch::blocks(132, 256).with_shared(200 << 10),
            blocks: 132.0,
            main,
            tail,
            traffic: vec![Traffic { read_bytes, ..Traffic::default() }],
            overlapped: false,
        }
    }

    fn counts(resource: Resource, count: f64) -> Counts {
        let mut counts = Counts::default();
        counts.add(resource, count);
        counts
    }

    #[test]
    fn the_longest_of_all_decides() {
        let card = &CARDS[0];
        let second = card.copy_bytes_per_second * MEMORY_SHARE;
        let copy = time(card, &work(Counts::default(), Counts::default(), second));
        assert_eq!((copy.seconds, copy.bound), (1.0, Bound::Memory));
        let slots = counts(Resource::Issue, card.hertz * 4.0 * ISSUE_SHARE);
        let issue = time(card, &work(Counts::default(), slots * 2.0, second));
        assert_eq!((issue.seconds, issue.bound), (2.0, Bound::Unit(Resource::Issue)));
    }

    #[test]
    fn the_end_of_a_product_waits_where_one_block_fits() {
        let card = &CARDS[0];
        let product = counts(Resource::Warpgroup, card.hertz * 4096.0 * PRODUCT_SHARE);
        let end = counts(Resource::Issue, card.hertz * 4.0 * ISSUE_SHARE / 2.0);
        let mut work = work(product, end, 0.0);
        assert_eq!(time(card, &work).seconds, 1.5);
        work.overlapped = true;
        assert_eq!(time(card, &work).seconds, 1.0);
        // Half of the multiprocessors have a second block to do.
        work.blocks = 1.5 * 132.0;
        assert_eq!(time(card, &work).seconds, 2.0);
    }
}
