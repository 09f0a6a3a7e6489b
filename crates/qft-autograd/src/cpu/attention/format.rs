//! How operands of products are stored along the contraction: two at a time, since hardware multiplies pairs of bf16.
//!
//! `vdpbf16ps` adds the product of the odd elements of a pair, then that of the even ones, each with one rounding. The
//! same two steps in f32 give the same bits, so [`Floats`] needs no such hardware. A contraction of odd length ends with
//! a zero.

use super::product::{self, Left};
use qft_tensor::numeric::bf16_operand;
use qft_tensor::simd::bf16_pairs::{Bf16Pairs, PairShape, Strided, StridedMut};

/// A way to store operands.
pub(super) trait Format: Copy {
    /// Elements of an operand in a stored float.
    const PACKED: usize;

    /// Stores `rows` rows of `width` elements along the contraction, times `factor`. Both sides with their strides.
    fn store_along(self, x: Strided<'_>, shape: (usize, usize), factor: f32, out: StridedMut<'_>);

    /// Stores `rows` rows of `width` lanes, times `factor`: each is one step of the contraction. Both sides with their
    /// strides.
    fn store_across(self, x: Strided<'_>, shape: (usize, usize), factor: f32, out: StridedMut<'_>);

    /// [`product::rows`] for operands in this format; lengths and strides count stored floats.
    fn rows<const R: usize, const V: usize>(
        self,
        left: Left<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
        n: usize,
        accumulate: bool,
    );

    /// [`product::columns`] for operands in this format.
    fn columns<const R: usize, const V: usize>(
        self,
        left: Left<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
        n: usize,
    );

    /// Stored floats of a contraction of length `k`.
    fn stored(k: usize) -> usize {
        k.next_multiple_of(2) / Self::PACKED
    }
}

/// f32: as it is, or bf16 values in the order in which pairs of them are added.
#[derive(Clone, Copy)]
pub(super) struct Floats<const BF16: bool>;

impl<const BF16: bool> Floats<BF16> {
    #[inline(always)]
    fn pair(even: f32, odd: f32) -> [f32; 2] {
        if BF16 { [bf16_operand(odd), bf16_operand(even)] } else { [even, odd] }
    }
}

/// Pairs of bf16 in the bits of a float, the even element below: for processors that multiply these.
#[derive(Clone, Copy)]
pub(super) struct Pairs(pub(super) Bf16Pairs);

impl<const BF16: bool> Format for Floats<BF16> {
    const PACKED: usize = 1;

    #[inline(always)]
    fn store_along(
        self,
        (x, stride): Strided<'_>,
        (rows, width): (usize, usize),
        factor: f32,
        (out, out_stride): StridedMut<'_>,
    ) {
        for row in 0..rows {
            let (pairs, last) = x[row * stride..][..width].as_chunks::<2>();
            let (out, behind) = out[row * out_stride..].split_at_mut(2 * pairs.len());
            for (out, &[even, odd]) in out.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                *out = Self::pair(even * factor, odd * factor);
            }
            if let &[even] = last {
                behind[..2].copy_from_slice(&Self::pair(even * factor, 0.0));
            }
        }
    }

    #[inline(always)]
    fn store_across(
        self,
        (x, stride): Strided<'_>,
        (rows, width): (usize, usize),
        factor: f32,
        (out, out_stride): StridedMut<'_>,
    ) {
        for first in (0..rows).step_by(2) {
            let even = &x[first * stride..][..width];
            let (out, behind) = out[first * out_stride..].split_at_mut(out_stride);
            let (out, behind) = (&mut out[..width], &mut behind[..width]);
            if first + 1 == rows {
                for lane in 0..width {
                    [out[lane], behind[lane]] = Self::pair(even[lane] * factor, 0.0);
                }
                return;
            }
            let odd = &x[(first + 1) * stride..][..width];
            for lane in 0..width {
                [out[lane], behind[lane]] = Self::pair(even[lane] * factor, odd[lane] * factor);
            }
        }
    }

    #[inline(always)]
    fn rows<const R: usize, const V: usize>(
        self,
        left: Left<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
        n: usize,
        accumulate: bool,
    ) {
        product::rows::<R, V>(left, right, out, n, accumulate);
    }

    #[inline(always)]
    fn columns<const R: usize, const V: usize>(
        self,
        left: Left<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
        n: usize,
    ) {
        product::columns::<R, V>(left, right, out, n);
    }
}

impl Format for Pairs {
    const PACKED: usize = 2;

    #[inline(always)]
    fn store_along(self, x: Strided<'_>, shape: (usize, usize), factor: f32, out: StridedMut<'_>) {
        self.0.store_along(x, shape, factor, out);
    }

    #[inline(always)]
    fn store_across(self, x: Strided<'_>, shape: (usize, usize), factor: f32, out: StridedMut<'_>) {
        self.0.store_across(x, shape, factor, out);
    }

    #[inline(always)]
    fn rows<const R: usize, const V: usize>(
        self,
        left: Left<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
        n: usize,
        accumulate: bool,
    ) {
        let Left { data, stride, m, k } = left;
        self.0.rows::<R, V>(PairShape { m, n, k }, (data, stride), right, out, accumulate);
    }

    #[inline(always)]
    fn columns<const R: usize, const V: usize>(
        self,
        left: Left<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
        n: usize,
    ) {
        let Left { data, stride, m, k } = left;
        self.0.columns::<R, V>(PairShape { m, n, k }, (data, stride), right, out);
    }
}
