//! The grid of kernels that go down the columns of a matrix.

use super::dims::index;
use crate::Launch;
use qft_tensor::Error;
use qft_tensor::rng::HALF_BLOCK;

/// Rows of a block, unless there are too many rows for the grid.
const STRIP: usize = 64;

/// The largest grid in y.
const MAX_GRID_Y: usize = 65_535;

/// Threads of a block: 8 warps.
const THREADS: u32 = 256;

/// A block per 128 columns and strip of rows, and the rows of a strip.
pub(super) fn by_columns(
    op: &'static str,
    rows: usize,
    cols: usize,
) -> Result<(Launch, usize), Error> {
    let strip = STRIP.max(rows.div_ceil(MAX_GRID_Y));
    let grid = [index(op, cols.div_ceil(HALF_BLOCK))?, index(op, rows.div_ceil(strip))?, 1];
    Ok((Launch { grid, ..Launch::blocks(1, THREADS) }, strip))
}
