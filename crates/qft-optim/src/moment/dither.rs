//! Numbers that decide between two codes, spread evenly over the steps of a run.
//!
//! A moment is rounded again in every step, and a chance of its own in each step adds up: after some steps it is as far off as a
//! random walk takes it, many times the gap between codes. Here the numbers of an element follow one another by the golden ratio,
//! so that those of any run of steps are spread evenly, and what one step rounds up too often the next ones round down. Each is
//! uniformly distributed over elements, as the others are.

use super::BLOCK;
use qft_tensor::{Philox, Purpose, RngKey};

/// From one step to the next: 2^32 over the golden ratio.
const STEP: u32 = 0x9E37_79B9;

/// From one column to the next, and from one row to the next: 2^32 over the plastic ratio and over its square.
pub const COLUMN: u32 = 0xC13F_A9A9;
/// See [`COLUMN`].
pub const ROW: u32 = 0x91E1_0DA6;

/// The words of a tensor in one step: that of row `n` and column `c` is `start + n ROW + c COLUMN`, modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dither {
    /// The word of the first element, by the run, the tensor and the step.
    pub start: u32,
}

impl Dither {
    /// Of an update with this key.
    pub fn new(key: RngKey) -> Self {
        let stream = RngKey::new(key.seed(), 0, key.tensor(), Purpose::MomentDither);
        let first = Philox::new(stream).word(0);
        Self { start: first.wrapping_add(key.step().wrapping_mul(STEP)) }
    }

    /// Those of block `b` of row `n`.
    #[inline(always)]
    pub fn block(self, n: usize, b: usize) -> [u32; BLOCK] {
        let column = (b * BLOCK) as u32;
        let first = (self.start)
            .wrapping_add((n as u32).wrapping_mul(ROW))
            .wrapping_add(column.wrapping_mul(COLUMN));
        let mut words = [0; BLOCK];
        for (e, word) in words.iter_mut().enumerate() {
            *word = first.wrapping_add((e as u32).wrapping_mul(COLUMN));
        }
        words
    }
}
