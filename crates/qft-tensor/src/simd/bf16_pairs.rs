//! Products of small matrices of bf16 pairs, with AVX512-BF16.
//!
//! A pair lies in the bits of a float, its even element below. `vdpbf16ps` adds the product of the odd elements, then
//! that of the even ones, each with one rounding: two fused multiply-adds in f32 give the same bits as long as no sum
//! is subnormal, which the instruction takes for zero.

use super::Isa;

/// Proof that this processor multiplies pairs of bf16.
#[derive(Debug, Clone, Copy)]
pub struct Bf16Pairs(());

/// A matrix: its elements, and how far apart its rows begin.
pub type Strided<'a> = (&'a [f32], usize);

/// The same to be written.
pub type StridedMut<'a> = (&'a mut [f32], usize);

/// Lengths of a product, in pairs along the contraction.
#[derive(Debug, Clone, Copy)]
pub struct PairShape {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result: a multiple of the `V` vectors of a tile.
    pub n: usize,
    /// Pairs of the contraction.
    pub k: usize,
}

impl Isa {
    /// Whether pairs of bf16 are multiplied at once.
    pub fn bf16_pairs(self) -> Option<Bf16Pairs> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            super::Level::Vnni | super::Level::Amx => {
                is_x86_feature_detected!("avx512bf16").then_some(Bf16Pairs(()))
            }
            _ => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Bf16Pairs {
    /// `out[m, ..n] (+)= left[m, k] * right[k, ..n]`, each operand with the stride of its rows, in tiles of `R` rows and
    /// `V` vectors of 16 columns.
    #[inline]
    pub fn rows<const R: usize, const V: usize>(
        self,
        shape: PairShape,
        left: Strided<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
        accumulate: bool,
    ) {
        // SAFETY: `self` exists only if the instructions do.
        unsafe { x86::rows::<R, V>(shape, left, right, out, accumulate) }
    }

    /// `out[m, ..n] += left[k, m]^T * right[k, ..n]`: rows of `left` lie along the rows of the result.
    #[inline]
    pub fn columns<const R: usize, const V: usize>(
        self,
        shape: PairShape,
        left: Strided<'_>,
        right: Strided<'_>,
        out: StridedMut<'_>,
    ) {
        // SAFETY: `self` exists only if the instructions do.
        unsafe { x86::columns::<R, V>(shape, left, right, out) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Bf16Pairs {
    /// Stores the pairs of each of `rows` rows of `width` elements times `factor`, rounded to nearest; a last element
    /// without another has a zero beside it. Both sides with the stride of their rows.
    #[inline]
    pub fn store_along(
        self,
        x: Strided<'_>,
        shape: (usize, usize),
        factor: f32,
        out: StridedMut<'_>,
    ) {
        // SAFETY: `self` exists only if the instructions do.
        unsafe { x86::store_along(x, shape, factor, out) }
    }

    /// Stores pairs of neighbouring rows, lane by lane, of `rows` rows of `width` lanes times `factor`; a last row without
    /// another has zeros beside it. Both sides with the stride of their rows.
    #[inline]
    pub fn store_across(
        self,
        x: Strided<'_>,
        shape: (usize, usize),
        factor: f32,
        out: StridedMut<'_>,
    ) {
        // SAFETY: `self` exists only if the instructions do.
        unsafe { x86::store_across(x, shape, factor, out) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Bf16Pairs {
    /// Never called: no value of this type exists here.
    pub fn store_along(self, _: Strided<'_>, _: (usize, usize), _: f32, _: StridedMut<'_>) {}

    /// Never called: no value of this type exists here.
    pub fn store_across(self, _: Strided<'_>, _: (usize, usize), _: f32, _: StridedMut<'_>) {}

    /// Never called: no value of this type exists here.
    pub fn rows<const R: usize, const V: usize>(
        self,
        _: PairShape,
        _: Strided<'_>,
        _: Strided<'_>,
        _: StridedMut<'_>,
        _: bool,
    ) {
    }

    /// Never called: no value of this type exists here.
    pub fn columns<const R: usize, const V: usize>(
        self,
        _: PairShape,
        _: Strided<'_>,
        _: Strided<'_>,
        _: StridedMut<'_>,
    ) {
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{PairShape, Strided, StridedMut};
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_castsi512_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
        _mm512_mul_ps, _mm512_permutexvar_epi16, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    /// Lanes of a vector.
    const LANES: usize = 16;

    /// A tile of the result: `R` rows of `V` vectors.
    type Tile<const R: usize, const V: usize> = [[__m512; V]; R];

    /// `sum + a0 * b0 + a1 * b1` in each lane, odd elements first.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn dot(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: both types are 64 bytes without a bit pattern that is invalid.
        let [a, b] = unsafe { std::mem::transmute::<[__m512; 2], [__m512bh; 2]>([a, b]) };
        _mm512_dpbf16_ps(sum, a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(x: &[f32]) -> __m512 {
        let x = &x[..LANES];
        // SAFETY: 16 floats behind a slice.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(out: &mut [f32], x: __m512) {
        let out = &mut out[..LANES];
        // SAFETY: 16 floats behind a slice.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }

    /// One tile of a product, begun with what is in `out` or with zeros. The first `valid` rows are read and written.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn tile<const R: usize, const V: usize>(
        k: usize,
        left: impl Fn(usize, usize) -> f32,
        (right, right_stride): Strided<'_>,
        (out, out_stride): StridedMut<'_>,
        valid: usize,
        accumulate: bool,
    ) {
        let mut sums: Tile<R, V> = [[_mm512_setzero_ps(); V]; R];
        if accumulate {
            for (r, sums) in sums.iter_mut().enumerate().take(valid) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load(&out[r * out_stride + v * LANES..]);
                }
            }
        }
        for k in 0..k {
            let row = &right[k * right_stride..][..V * LANES];
            let mut vectors = [_mm512_setzero_ps(); V];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = load(&row[v * LANES..]);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(left(k, r));
                for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                    *sum = dot(*sum, x, vector);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate().take(valid) {
            for (v, &sum) in sums.iter().enumerate() {
                store(&mut out[r * out_stride + v * LANES..], sum);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn rows<const R: usize, const V: usize>(
        PairShape { m, n, k }: PairShape,
        (data, stride): Strided<'_>,
        (right, right_stride): Strided<'_>,
        (out, out_stride): StridedMut<'_>,
        accumulate: bool,
    ) {
        for first in (0..m).step_by(R) {
            let valid = R.min(m - first);
            // Rows past the end repeat the last one; their results are not stored.
            let lines: [&[f32]; R] =
                std::array::from_fn(|r| &data[(first + r.min(valid - 1)) * stride..][..k]);
            for col in (0..n).step_by(V * LANES) {
                let out = (&mut out[first * out_stride + col..], out_stride);
                let right = (&right[col..], right_stride);
                tile::<R, V>(k, |k, r| lines[r][k], right, out, valid, accumulate);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn columns<const R: usize, const V: usize>(
        PairShape { m, n, k }: PairShape,
        (data, stride): Strided<'_>,
        (right, right_stride): Strided<'_>,
        (out, out_stride): StridedMut<'_>,
    ) {
        let whole = m / R * R;
        for first in (0..whole).step_by(R) {
            for col in (0..n).step_by(V * LANES) {
                let out = (&mut out[first * out_stride + col..], out_stride);
                let at = |k: usize, r: usize| data[k * stride + first..][..R][r];
                tile::<R, V>(k, at, (&right[col..], right_stride), out, R, true);
            }
        }
        for first in whole..m {
            for col in (0..n).step_by(V * LANES) {
                let out = (&mut out[first * out_stride + col..], out_stride);
                let at = |k: usize, _: usize| data[k * stride + first];
                tile::<1, V>(k, at, (&right[col..], right_stride), out, 1, true);
            }
        }
    }

    /// Up to 16 floats times `factor`, zeros behind them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_some(x: &[f32], factor: __m512) -> __m512 {
        // Without a mask where that is possible: a masked load waits for stores to the same bytes.
        let x = if x.len() >= LANES {
            load(x)
        } else {
            let mask = ((1u32 << x.len()) - 1) as u16;
            // SAFETY: what the mask leaves out is not read.
            unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
        };
        _mm512_mul_ps(x, factor)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store_some(out: &mut [f32], x: __m512) {
        if out.len() >= LANES {
            store(out, x);
        } else {
            let mask = ((1u32 << out.len()) - 1) as u16;
            // SAFETY: what the mask leaves out is not written.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, x) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn store_along(
        (x, stride): Strided<'_>,
        (rows, width): (usize, usize),
        factor: f32,
        (out, out_stride): StridedMut<'_>,
    ) {
        let factor = _mm512_set1_ps(factor);
        for row in 0..rows {
            let x = &x[row * stride..][..width];
            let out = &mut out[row * out_stride..][..width.div_ceil(2)];
            for (x, out) in x.chunks(2 * LANES).zip(out.chunks_mut(LANES)) {
                let (low, high) = x.split_at(x.len().min(LANES));
                let pairs = _mm512_cvtne2ps_pbh(load_some(high, factor), load_some(low, factor));
                // SAFETY: both types are 64 bytes without a bit pattern that is invalid.
                store_some(out, unsafe { std::mem::transmute::<__m512bh, __m512>(pairs) });
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn store_across(
        (x, stride): Strided<'_>,
        (rows, width): (usize, usize),
        factor: f32,
        (out, out_stride): StridedMut<'_>,
    ) {
        let factor = _mm512_set1_ps(factor);
        // Word 2 i of the result is word i of the even half, word 2 i + 1 is word i of the odd one.
        let order: [u16; 2 * LANES] =
            std::array::from_fn(|i| (i / 2 + if i % 2 == 0 { 0 } else { LANES }) as u16);
        // SAFETY: 64 bytes behind a reference.
        let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
        for pair in 0..rows.div_ceil(2) {
            let even = &x[2 * pair * stride..][..width];
            let odd =
                if 2 * pair + 1 < rows { &x[(2 * pair + 1) * stride..][..width] } else { &[] };
            let out = &mut out[pair * out_stride..][..width];
            for (i, (even, out)) in even.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
                let odd = odd.get(i * LANES..).unwrap_or_default();
                let odd = &odd[..odd.len().min(LANES)];
                let halves = _mm512_cvtne2ps_pbh(load_some(odd, factor), load_some(even, factor));
                // SAFETY: both types are 64 bytes without a bit pattern that is invalid.
                let halves = unsafe { std::mem::transmute::<__m512bh, __m512i>(halves) };
                store_some(out, _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, halves)));
            }
        }
    }
}
