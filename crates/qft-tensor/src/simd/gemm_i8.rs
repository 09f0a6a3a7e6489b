//! INT8 products over plain slices.

use crate::Isa;

/// One operand as stored: either the contraction axis is contiguous, or the other one is.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [i8],
    /// Elements between two stored rows.
    pub stride: usize,
    /// Whether a stored row runs along the contraction axis.
    pub k_contiguous: bool,
}

impl Operand<'_> {
    fn at(&self, outer: usize, k: usize) -> i32 {
        let index =
            if self.k_contiguous { outer * self.stride + k } else { k * self.stride + outer };
        i32::from(self.data[index])
    }
}

/// `out[m, n] (+)= row_scale[m] * col_scale[n] * sum_k a(m, k) b(n, k)`; see [`crate::GemmI8`].
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the contraction, at most [`crate::MAX_K`].
    pub k: usize,
    /// First operand; its outer axis is `m`.
    pub a: Operand<'a>,
    /// Second operand; its outer axis is `n`.
    pub b: Operand<'a>,
    /// `[m]`.
    pub row_scale: Option<&'a [f32]>,
    /// `[n]`.
    pub col_scale: Option<&'a [f32]>,
    /// Elements between two rows of the result.
    pub out_stride: usize,
    /// Whether to add to the result.
    pub accumulate: bool,
}

/// Computes the product on the current rayon pool with instruction set `isa`.
pub fn run(isa: Isa, p: &Product<'_>, out: &mut [f32]) {
    let _ = isa;
    for m in 0..p.m {
        for n in 0..p.n {
            let sum: i32 = (0..p.k).map(|k| p.a.at(m, k) * p.b.at(n, k)).sum();
            let value =
                sum as f32 * p.row_scale.map_or(1.0, |s| s[m]) * p.col_scale.map_or(1.0, |s| s[n]);
            let cell = &mut out[m * p.out_stride + n];
            *cell = if p.accumulate { *cell + value } else { value };
        }
    }
}
