//! Protected features: the largest weights of a matrix, kept as bf16 at fixed positions.

use crate::Error;
use half::bf16;
use qft_tensor::{Buffer, Device, Owner};

/// Columns that share one count; a column index within a block fits a byte.
pub const BLOCK_COLS: usize = 256;

/// The most features a block can hold: its count is a byte.
pub const MAX_PER_BLOCK: usize = 255;

/// The sparse part of a hybrid matrix, row by row, each row block by block in rising column order.
///
/// Three bytes a feature, one byte per 256 columns and four per row.
#[derive(Debug)]
pub struct Outliers {
    /// Values, bf16 `[capacity]`; the first `row_start[N]` are in use.
    pub values: Buffer<bf16>,
    /// Column within its block of 256, u8 `[capacity]`.
    pub cols: Buffer<u8>,
    /// Features per block, u8 `[N, ceil(K / 256)]`.
    pub counts: Buffer<u8>,
    /// First feature of each row, u32 `[N + 1]`.
    pub row_start: Buffer<u32>,
}

impl Outliers {
    /// Allocates room for `capacity` features of a `[rows, cols]` matrix, contents unspecified.
    pub fn alloc(
        device: &dyn Device,
        rows: usize,
        cols: usize,
        capacity: usize,
    ) -> Result<Self, Error> {
        let blocks = rows * cols.div_ceil(BLOCK_COLS);
        Ok(Self {
            values: Buffer::alloc(device, Owner::Outliers, "outlier values", capacity)?,
            cols: Buffer::alloc(device, Owner::Outliers, "outlier columns", capacity)?,
            counts: Buffer::alloc(device, Owner::Outliers, "outlier counts", blocks)?,
            row_start: Buffer::alloc(device, Owner::Outliers, "outlier rows", rows + 1)?,
        })
    }

    /// Number of features there is room for.
    pub fn capacity(&self) -> usize {
        self.values.len()
    }
}
