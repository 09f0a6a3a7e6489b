//! The protected weights of a row.

use super::update::Step;
use half::bf16;
use qft_quant::fixed_point::BLOCK;
use qft_quant::protected::{BLOCK_COLS, ProtectedWeights, columns};
use qft_tensor::numeric::nearest_bf16;
use std::iter::Peekable;
use std::ops::Range;

/// Protected weights of some rows; empty if the matrix has none.
#[derive(Default)]
pub(super) struct ProtectedRows<'a> {
    values: &'a mut [bf16],
    cols: &'a [u8],
    counts: &'a [u8],
    /// Ends of the rows' protected weights, counted like `first`.
    row_end: &'a [u32],
    first: u32,
}

impl<'a> ProtectedRows<'a> {
    /// Those of `rows`.
    pub(super) fn of(
        protected: &'a mut Option<ProtectedWeights>,
        cols: usize,
        rows: &Range<usize>,
    ) -> Result<Self, qft_tensor::Error> {
        let len = rows.len();
        let Some(protected) = protected else { return Ok(Self::default()) };
        let row_start = &protected.row_start.host()?[rows.start..=rows.end];
        let blocks = cols.div_ceil(BLOCK_COLS);
        let range = row_start[0] as usize..row_start[len] as usize;
        Ok(Self {
            values: &mut protected.values.host_mut()?[range.clone()],
            cols: &protected.cols.host()?[range],
            counts: &protected.counts.host()?[rows.start * blocks..rows.end * blocks],
            row_end: &row_start[1..],
            first: row_start[0],
        })
    }

    /// Splits off some rows.
    pub(super) fn take_rows(&mut self, rows: usize, cols: usize) -> Self {
        let (row_end, ends) = self.row_end.split_at(rows.min(self.row_end.len()));
        self.row_end = ends;
        let first = self.first;
        self.first = row_end.last().copied().unwrap_or(first);
        let count = (self.first - first) as usize;
        let blocks = (rows * cols.div_ceil(BLOCK_COLS)).min(self.counts.len());
        let (here, behind) = self.cols.split_at(count);
        let (counts, counts_behind) = self.counts.split_at(blocks);
        (self.cols, self.counts) = (behind, counts_behind);
        Self { values: super::take(&mut self.values, count), cols: here, counts, row_end, first }
    }

    /// Columns and values, columns rising within each row.
    pub(super) fn into_row(self) -> impl Iterator<Item = (usize, &'a mut bf16)> {
        columns(self.counts, self.cols).zip(self.values)
    }
}

/// Updates the protected weights of block `b` of a row, and keeps their fixed-point weights at zero.
#[inline(always)]
pub(super) fn update_protected<'a>(
    protected: &mut Peekable<impl Iterator<Item = (usize, &'a mut bf16)>>,
    step: &Step,
    b: usize,
    direction: &[f32; BLOCK],
    k: &mut [i32; BLOCK],
    words: &[u32; BLOCK],
) {
    while let Some((col, value)) = protected.next_if(|(col, _)| *col < (b + 1) * BLOCK) {
        let e = col % BLOCK;
        k[e] = 0;
        let v = value.to_f32();
        let new = v - step.lr * (direction[e] + step.weight_decay * v);
        *value = if step.noise == 0.0 {
            nearest_bf16(new)
        } else {
            // Adding below the last bit kept and cutting there rounds up with the probability of the fraction.
            let bits = new.to_bits().wrapping_add(words[e] & 0xFFFF);
            bf16::from_bits((bits >> 16) as u16)
        };
    }
}
