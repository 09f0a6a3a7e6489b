//! The specification: every other path must give these bits.

use super::Product;
use rayon::prelude::*;

/// Computes each element by itself.
pub(super) fn run(p: &Product<'_>, out: &mut [u32]) {
    out.par_chunks_mut(p.out_stride.max(1)).take(p.m).enumerate().for_each(|(m, row)| {
        let (row_scale, end) = (p.row_scale.map(|s| s[m]), p.end(m));
        for (n, cell) in row[..p.n].iter_mut().enumerate() {
            let sum: i32 = (0..p.k).map(|k| p.a.at(m, k) * p.b.at(n, k)).sum();
            end.write(scaled(sum, row_scale, p.col_scale.map(|s| s[n])), cell);
        }
    });
}

/// The float of a complete sum.
#[inline(always)]
pub(super) fn scaled(sum: i32, row_scale: Option<f32>, col_scale: Option<f32>) -> f32 {
    let mut value = sum as f32;
    if let Some(scale) = row_scale {
        value *= scale;
    }
    if let Some(scale) = col_scale {
        value *= scale;
    }
    value
}

/// How the floats of a row join the result.
#[derive(Clone, Copy)]
pub(super) enum End {
    Float { accumulate: bool },
    Units { inverse: f32, accumulate: bool },
}

impl End {
    /// Writes `value` to a word of the result.
    #[inline(always)]
    pub(super) fn write(self, value: f32, cell: &mut u32) {
        *cell = match self {
            Self::Float { accumulate: false } => value.to_bits(),
            Self::Float { accumulate: true } => (f32::from_bits(*cell) + value).to_bits(),
            Self::Units { inverse, accumulate } => {
                let units = (value * inverse).round_ties_even() as i32 as u32;
                if accumulate { cell.wrapping_add(units) } else { units }
            }
        }
    }
}

impl Product<'_> {
    /// How row `m` ends.
    pub(super) fn end(&self, m: usize) -> End {
        let accumulate = self.accumulate;
        match self.inverse_units {
            None => End::Float { accumulate },
            Some(inverse) => End::Units { inverse: inverse[m], accumulate },
        }
    }
}
