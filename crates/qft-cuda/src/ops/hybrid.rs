//! Hybrid matrices on the GPU: `kernels/hybrid.cu`, `kernels/sparse.cu`.

use super::dims::index;
use super::optim::shifted;
use crate::scratch::SCRATCH_BYTES;
use crate::{Arg, Cuda, Launch};
use qft_quant::protected::BLOCK_COLS;
use qft_quant::{
    DecodeRows, Error, HybridMatrix, HybridOps, Precision, ProtectedWeights, Residual,
    SparseBackward, SparseForward,
};

/// Threads of a block in `decode_rows`.
const DECODE_THREADS: u32 = 128;

/// Rows and tokens of a block in `sparse_forward`, and its threads.
const FORWARD: (usize, usize, u32) = (128, 128, 256);
/// The same in `sparse_forward_few`.
const FORWARD_FEW: (usize, usize, u32) = (256, 16, 256);

/// Columns and tokens of a block in `sparse_backward`, and its threads.
const BACKWARD: (usize, usize, u32) = (128, 128, 256);

/// Threads of a block in `sparse_places`, a row each.
const PLACES_THREADS: u32 = 128;
/// Rows that have places in each block of columns, as in the kernels: whole chunks, and two more.
const fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(32) + 64
}
/// Bytes of a row's place.
const PLACE_BYTES: usize = 8;

/// log2 of the residual's steps in one of the high plane.
fn log_f(residual: Residual) -> u32 {
    residual.steps().ilog2()
}

impl Cuda {
    /// Values, columns, counts and row starts of protected weights: null if there are none.
    pub(super) fn protected_args(
        &self,
        op: &'static str,
        protected: Option<&ProtectedWeights>,
    ) -> Result<[Arg; 4], qft_tensor::Error> {
        let Some(protected) = protected else { return Ok([Arg::NULL; 4]) };
        Ok([
            self.read(op, &protected.values)?,
            self.read(op, &protected.cols)?,
            self.read(op, &protected.counts)?,
            self.read(op, &protected.row_start)?,
        ])
    }

    /// The same for a kernel that changes the values.
    pub(super) fn updated_protected_args(
        &self,
        op: &'static str,
        protected: Option<&mut ProtectedWeights>,
    ) -> Result<[Arg; 4], qft_tensor::Error> {
        let Some(protected) = protected else { return Ok([Arg::NULL; 4]) };
        let [_, cols, counts, row_start] = self.protected_args(op, Some(&*protected))?;
        Ok([self.write(op, &mut protected.values)?, cols, counts, row_start])
    }
}

impl HybridOps for Cuda {
    fn decode_rows(&self, op: DecodeRows<'_>) -> Result<(), Error> {
        const OP: &str = "decode_rows";
        op.check()?;
        let DecodeRows { weight, rows, precision, mut out } = op;
        let cols = weight.cols();
        if rows.is_empty() || cols == 0 {
            return Ok(());
        }
        let (log_f, residual) = match (precision, &weight.residual) {
            (Precision::Full, Some(plane)) => {
                let (kept, format) = (weight.residual_shard(), weight.format().residual);
                let plane = self.read(OP, plane)?;
                (log_f(format), shifted(plane, kept, &rows, format.row_bytes(cols)))
            }
            _ => (0, Arg::NULL),
        };
        let mut args = vec![self.read(OP, &weight.q)?, residual, self.read(OP, &weight.scale)?];
        args.extend(self.protected_args(OP, weight.protected.as_ref())?);
        args.extend([
            self.write_mat(OP, &mut out)?,
            Arg::size(out.stride()),
            Arg::U32(index(OP, rows.start)?),
            Arg::U32(index(OP, cols)?),
            Arg::U32(log_f),
        ]);
        let launch = Launch::blocks(index(OP, rows.len())?, DECODE_THREADS);
        Ok(self.launch(OP, "decode_rows_i8_f32", launch, &args)?)
    }

    fn sparse_forward(&self, op: SparseForward<'_>) -> Result<(), Error> {
        const OP: &str = "sparse_forward";
        op.check()?;
        let SparseForward { x, weight, rows, mut y } = op;
        let tokens = x.rows();
        if weight.protected.is_none() || rows.is_empty() || tokens == 0 {
            return Ok(());
        }
        let grid = |(block_rows, block_tokens, _): (usize, usize, u32)| {
            [rows.len().div_ceil(block_rows), tokens.div_ceil(block_tokens)]
        };
        // Where the large blocks do not fill the device, more small ones finish earlier.
        let blocks: usize = grid(FORWARD).iter().product();
        let (kernel, tile) = if blocks >= self.driver().properties().multiprocessors as usize {
            ("sparse_forward_i8_f32", FORWARD)
        } else {
            ("sparse_forward_few_i8_f32", FORWARD_FEW)
        };
        let grid = grid(tile);
        let mut args = vec![self.read(OP, &x.q)?, self.read(OP, &x.scale)?];
        args.extend(self.protected_args(OP, weight.protected.as_ref())?);
        args.extend([self.write_mat(OP, &mut y)?, Arg::size(y.stride())]);
        args.extend(shape(OP, weight, rows.start, rows.len(), tokens)?);
        let launch = Launch {
            grid: [index(OP, grid[0])?, index(OP, grid[1])?, 1],
            ..Launch::blocks(1, tile.2)
        };
        Ok(self.launch(OP, kernel, launch, &args)?)
    }

    fn sparse_backward(&self, op: SparseBackward<'_>) -> Result<(), Error> {
        const OP: &str = "sparse_backward";
        op.check()?;
        let SparseBackward { dy, weight, rows, mut dx } = op;
        let (tokens, (block_cols, block_tokens, threads)) = (dy.rows(), BACKWARD);
        if weight.protected.is_none() || rows.is_empty() || tokens == 0 {
            return Ok(());
        }
        let [values, protected_cols, counts, row_start] =
            self.protected_args(OP, weight.protected.as_ref())?;
        let gradient =
            [self.read(OP, &dy.q)?, self.read(OP, &dy.scale)?, self.read(OP, &weight.scale)?];
        let out = [self.write_mat(OP, &mut dx)?, Arg::size(dx.stride())];
        let [first_row, n, t, k] = shape(OP, weight, rows.start, rows.len(), tokens)?;
        // As many blocks of columns at a time as the scratch block has room for: mostly all. One is four million rows.
        let (blocks, padded) = (weight.cols().div_ceil(BLOCK_COLS), padded_rows(rows.len()));
        let block_bytes = PLACE_BYTES * padded;
        let most = (SCRATCH_BYTES / block_bytes).clamp(1, blocks.max(1));
        let scratch = self.scratch(OP, most * block_bytes)?;
        let places = scratch.at(0);
        for first in (0..blocks).step_by(most) {
            let end = blocks.min(first + most);
            let first_block = Arg::U32(index(OP, first)?);
            let count = Arg::U32(index(OP, end - first)?);
            let args = [counts, row_start, places, first_row, n, first_block, count, k];
            let grid = padded.div_ceil(PLACES_THREADS as usize);
            let launch = Launch::blocks(index(OP, grid)?, PLACES_THREADS);
            self.launch(OP, "sparse_places_u32", launch, &args)?;

            let cols = weight.cols().min(end * BLOCK_COLS) - first * BLOCK_COLS;
            let grid = [cols.div_ceil(block_cols), tokens.div_ceil(block_tokens)];
            let sparse = [values, protected_cols, places];
            let args = [&gradient[..], &sparse, &out, &[first_row, n, first_block, t, k]].concat();
            let launch = Launch {
                grid: [index(OP, grid[0])?, index(OP, grid[1])?, 1],
                ..Launch::blocks(1, threads)
            };
            self.launch(OP, "sparse_backward_i8_f32", launch, &args)?;
        }
        Ok(())
    }
}

/// First row, rows, tokens and columns of a product.
fn shape(
    op: &'static str,
    weight: &HybridMatrix,
    first_row: usize,
    rows: usize,
    tokens: usize,
) -> Result<[Arg; 4], qft_tensor::Error> {
    let sizes = [first_row, rows, tokens, weight.cols()];
    let mut out = [Arg::U32(0); 4];
    for (arg, size) in out.iter_mut().zip(sizes) {
        *arg = Arg::U32(index(op, size)?);
    }
    Ok(out)
}
