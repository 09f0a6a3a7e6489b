//! INT8 products over plain slices.
//!
//! [`run`] picks the micro-kernel of an instruction set; `blocks` cuts the product into tiles, packs the
//! operands and hands the tiles out. Every sum is complete, as an exact `i32`, before it becomes a float, so
//! all paths give the same bits.

mod blocks;
mod scalar;
mod scratch;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(super) use amx::{Configured as AmxConfigured, usable as amx_usable};

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{sdot, smmla};

use super::Level;
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

impl<'a> Operand<'a> {
    /// `len` elements along the contiguous axis from index `start` of stored row `row`.
    #[inline(always)]
    fn stored(&self, row: usize, start: usize, len: usize) -> &'a [i8] {
        &self.data[row * self.stride + start..][..len]
    }

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
    /// `[m]`: where given, results are whole numbers of units, times whose inverse floats are rounded; see
    /// [`crate::GemmOut::Units`].
    pub inverse_units: Option<&'a [f32]>,
    /// Elements between two rows of the result, at least `n`.
    pub out_stride: usize,
    /// Whether to add to the result.
    pub accumulate: bool,
}

/// Computes the product on the current rayon pool with instruction set `isa`. `out` has the words of `f32`, or of `i32`
/// where results are whole numbers.
///
/// Numerics: see [`crate::GemmI8`]; the same bits for every `isa` and thread count. Scratch: at most
/// [`max_scratch_bytes`], kept for the next call. Panics if a slice is too short for the shape, or if `k`
/// exceeds [`crate::MAX_K`]: callers check shapes first.
pub fn run(isa: Isa, p: &Product<'_>, out: &mut [u32]) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    check(p, out.len());
    if p.k == 0 {
        return scalar::run(p, out);
    }
    match isa.0 {
        Level::Scalar => scalar::run(p, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => blocks::run(avx2::Avx2::new(isa), p, out),
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => blocks::run(avx_vnni::AvxVnni::new(isa), p, out),
        #[cfg(target_arch = "x86_64")]
        Level::Vnni => blocks::run(vnni::Vnni::new(isa), p, out),
        #[cfg(target_arch = "x86_64")]
        Level::Amx => blocks::run(amx::Amx::new(isa), p, out),
        #[cfg(target_arch = "aarch64")]
        Level::DotProduct => blocks::run(neon::Dot::new(isa), p, out),
        #[cfg(target_arch = "aarch64")]
        Level::I8mm => blocks::run(neon::Matrix::new(isa), p, out),
    }
}

/// The most memory that products keep between calls, on a pool of `threads` threads and as long as products
/// do not run at the same time: 8 MiB for the second operand, 577 KiB per thread for the first and for
/// unfinished sums.
pub const fn max_scratch_bytes(threads: usize) -> usize {
    blocks::SHARED_BYTES + threads * blocks::LEAF_BYTES
}

/// Every index that a kernel can form lies inside its slice.
fn check(p: &Product<'_>, out: usize) {
    let fits = |rows: usize, stride: usize, cols: usize, len: usize| {
        rows == 0
            || cols == 0
            || (rows - 1)
                .checked_mul(stride)
                .and_then(|start| start.checked_add(cols))
                .is_some_and(|end| end <= len)
    };
    let operand = |x: &Operand<'_>, outer: usize| {
        let (rows, cols) = if x.k_contiguous { (outer, p.k) } else { (p.k, outer) };
        fits(rows, x.stride, cols, x.data.len())
    };
    assert!(p.k <= crate::MAX_K, "contraction of {} terms", p.k);
    assert!(operand(&p.a, p.m), "first operand too short");
    assert!(operand(&p.b, p.n), "second operand too short");
    assert!(fits(p.m, p.out_stride, p.n, out), "result too short");
    assert!(p.m <= 1 || p.out_stride >= p.n, "rows of the result overlap");
    assert!(p.row_scale.is_none_or(|s| s.len() == p.m), "one scale per row");
    assert!(p.col_scale.is_none_or(|s| s.len() == p.n), "one scale per column");
    assert!(p.inverse_units.is_none_or(|s| s.len() == p.m), "one unit per row");
}
