//! The specification: every other path must give these bits.

use super::Product;
use rayon::prelude::*;

/// Computes each element by itself.
pub(super) fn run(p: &Product<'_>, out: &mut [f32]) {
    out.par_chunks_mut(p.out_stride.max(1)).take(p.m).enumerate().for_each(|(m, row)| {
        for (n, cell) in row[..p.n].iter_mut().enumerate() {
            let sum: i32 = (0..p.k).map(|k| p.a.at(m, k) * p.b.at(n, k)).sum();
            finish(sum, p.row_scale.map(|s| s[m]), p.col_scale.map(|s| s[n]), p.accumulate, cell);
        }
    });
}

/// What happens to a complete sum.
#[inline(always)]
pub(super) fn finish(
    sum: i32,
    row_scale: Option<f32>,
    col_scale: Option<f32>,
    accumulate: bool,
    cell: &mut f32,
) {
    let mut value = sum as f32;
    if let Some(scale) = row_scale {
        value *= scale;
    }
    if let Some(scale) = col_scale {
        value *= scale;
    }
    *cell = if accumulate { *cell + value } else { value };
}
