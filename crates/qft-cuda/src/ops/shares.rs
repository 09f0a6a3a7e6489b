//! Sums over the rows of a matrix, by shares of 64 rows that are added in order: `kernels/shares.cu`.

use super::dims::index;
use crate::scratch::SCRATCH_BYTES;
use crate::{Arg, Cuda, Launch};
use qft_autograd::Error;

/// Threads of a block, a column each, as in the kernels.
const THREADS: u32 = 128;
/// Rows of a share, as in the kernels.
const ROWS: usize = 64;
/// Bytes of a float in scratch.
const FLOAT: usize = size_of::<f32>();
/// The largest grid in y.
const MAX_BLOCKS: usize = 65_535;

/// Adds to `sum` f32 `[cols]` the shares of `rows` rows.
///
/// `share` launches a kernel that writes shares to its second argument, from the block of its third on.
pub(super) fn add(
    cuda: &Cuda,
    op: &'static str,
    (rows, cols): (usize, usize),
    sum: Arg,
    share: impl Fn(Launch, Arg, Arg) -> Result<(), Error>,
) -> Result<(), Error> {
    // As many shares at a time as the scratch block holds; they are added in order either way.
    let blocks = rows.div_ceil(ROWS);
    let most = (SCRATCH_BYTES / (cols * FLOAT)).clamp(1, MAX_BLOCKS);
    let scratch = cuda.scratch(op, most.min(blocks) * cols * FLOAT)?;
    let (shares, cols) = (scratch.at(0), index(op, cols)?);
    let strips = cols.div_ceil(THREADS);
    for first in (0..blocks).step_by(most) {
        let (first, count) = (index(op, first)?, index(op, most.min(blocks - first))?);
        let strip = Launch::blocks(strips, THREADS);
        share(Launch { grid: [strips, count, 1], ..strip }, shares, Arg::U32(first))?;
        let args = [shares, sum, Arg::U32(count), Arg::U32(cols)];
        cuda.launch(op, "sum_shares_f32", strip, &args)?;
    }
    Ok(())
}
