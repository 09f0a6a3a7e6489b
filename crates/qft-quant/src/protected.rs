//! Protected weights: the largest weights of a matrix, kept as bf16 at fixed positions.

use crate::Error;
use half::bf16;
use qft_tensor::{Buffer, Device, Owner};

/// Columns that share one count; a column index within a block fits a byte.
pub const BLOCK_COLS: usize = 256;

/// The most protected weights a block can hold: its count is a byte.
pub const MAX_PER_BLOCK: usize = 255;

/// The sparse part of a hybrid matrix, row by row, each row block by block in rising column order.
///
/// Three bytes a weight, one byte per 256 columns and four per row.
#[derive(Debug)]
pub struct ProtectedWeights {
    /// Values, bf16 `[capacity]`; the first `row_start[N]` are in use.
    pub values: Buffer<bf16>,
    /// Column within its block of 256, u8 `[capacity]`.
    pub cols: Buffer<u8>,
    /// Protected weights per block, u8 `[N, ceil(K / 256)]`.
    pub counts: Buffer<u8>,
    /// First protected weight of each row, u32 `[N + 1]`.
    pub row_start: Buffer<u32>,
}

impl ProtectedWeights {
    /// Allocates room for `capacity` protected weights of a `[rows, cols]` matrix, contents unspecified.
    pub fn alloc(
        device: &dyn Device,
        rows: usize,
        cols: usize,
        capacity: usize,
    ) -> Result<Self, Error> {
        let blocks = rows * cols.div_ceil(BLOCK_COLS);
        Ok(Self {
            values: Buffer::alloc(device, Owner::Protected, "protected values", capacity)?,
            cols: Buffer::alloc(device, Owner::Protected, "protected columns", capacity)?,
            counts: Buffer::alloc(device, Owner::Protected, "protected counts", blocks)?,
            row_start: Buffer::alloc(device, Owner::Protected, "protected rows", rows + 1)?,
        })
    }

    /// Number of weights there is room for.
    pub fn capacity(&self) -> usize {
        self.values.len()
    }
}

/// The protected weights of a matrix in host memory.
#[derive(Debug, Clone, Copy)]
pub struct ProtectedView<'a> {
    values: &'a [bf16],
    cols: &'a [u8],
    counts: &'a [u8],
    row_start: &'a [u32],
    blocks: usize,
}

impl<'a> ProtectedView<'a> {
    /// The protected weights of a matrix of `cols` columns.
    ///
    /// Errors: [`qft_tensor::Error::WrongDevice`] if they are not in host memory.
    pub fn new(protected: &'a ProtectedWeights, cols: usize) -> Result<Self, Error> {
        Ok(Self {
            values: protected.values.host()?,
            cols: protected.cols.host()?,
            counts: protected.counts.host()?,
            row_start: protected.row_start.host()?,
            blocks: cols.div_ceil(BLOCK_COLS),
        })
    }

    /// The protected weights of row `n`.
    #[inline(always)]
    pub fn row(&self, n: usize) -> ProtectedRow<'a> {
        let range = self.row_start[n] as usize..self.row_start[n + 1] as usize;
        ProtectedRow {
            values: &self.values[range.clone()],
            cols: &self.cols[range],
            counts: &self.counts[n * self.blocks..][..self.blocks],
        }
    }
}

/// The protected weights of one row in host memory.
#[derive(Debug, Clone, Copy)]
pub struct ProtectedRow<'a> {
    values: &'a [bf16],
    cols: &'a [u8],
    counts: &'a [u8],
}

impl ProtectedRow<'_> {
    /// Calls `f(column, value)` for each weight, columns rising.
    #[inline(always)]
    pub fn for_each(&self, mut f: impl FnMut(usize, bf16)) {
        let mut left = self.cols.iter().zip(self.values);
        for (block, &count) in self.counts.iter().enumerate() {
            for (&col, &value) in left.by_ref().take(usize::from(count)) {
                f(block * BLOCK_COLS + usize::from(col), value);
            }
        }
    }
}

/// Columns of the protected weights of one row, from its counts per block and its columns within blocks.
#[inline(always)]
pub fn columns<'a>(counts: &'a [u8], cols: &'a [u8]) -> impl Iterator<Item = usize> + use<'a> {
    let mut left = cols;
    counts.iter().enumerate().flat_map(move |(block, &count)| {
        let (here, behind) = left.split_at(usize::from(count).min(left.len()));
        left = behind;
        here.iter().map(move |&col| block * BLOCK_COLS + usize::from(col))
    })
}
