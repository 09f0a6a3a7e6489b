//! AVX2: bytes widened to 16 bits, `vpmaddwd` multiplies two pairs and adds them to an exact `i32`.
//!
//! (`vpmaddubsw`, which would take bytes, saturates.)

use super::blocks::{Engine, Part, Tile};
use super::{Operand, Product};
use crate::Isa;
use crate::simd::Level;
use std::arch::x86_64::*;

/// The engine; its existence proves that the processor has AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Rows and columns of a tile: 12 accumulators, two registers of `b`, one broadcast of `a`, one product.
const MR: usize = 6;
const NR: usize = 16;
/// Bytes of a group of two steps in a panel of columns.
const GROUP_B: usize = 2 * 2 * NR;

impl Avx2 {
    /// Panics if `isa` does not include the instructions.
    pub(super) fn new(isa: Isa) -> Self {
        assert!(isa.0 >= Level::Avx2);
        Self(())
    }
}

impl Engine for Avx2 {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = 2;
    const BYTES: usize = 2;

    fn panel_rows(rows: usize) -> usize {
        rows.next_multiple_of(2)
    }

    fn pack_a(self, src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
        bias.fill(0);
        let row_bytes = dst.len() / bias.len();
        for (first, at) in at.panels(MR) {
            let rows = Self::panel_rows(at.count);
            let dst = &mut dst[first * row_bytes..][..rows * row_bytes];
            // SAFETY: `self` exists, so the processor has these instructions.
            unsafe { pack_a(src, at, dst, rows) }
        }
    }

    fn pack_b(self, src: &Operand<'_>, at: Part, dst: &mut [u8]) {
        // SAFETY: as above.
        unsafe { pack_b(src, at, dst) }
    }

    fn tile(self, t: Tile<'_>) {
        // SAFETY: as above.
        unsafe {
            match t.bias.len() {
                2 => tile::<2>(t),
                4 => tile::<4>(t),
                _ => tile::<MR>(t),
            }
        }
    }

    fn dot(self, p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
        // SAFETY: as above.
        unsafe { dot(p, n0, sums) }
    }
}

/// A tile of `R` rows, padding included.
#[target_feature(enable = "avx2")]
fn tile<const R: usize>(t: Tile<'_>) {
    let (a, _) = bytemuck::cast_slice::<u8, i32>(t.a).as_chunks::<R>();
    let (b, _) = t.b.as_chunks::<GROUP_B>();
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    if !t.first {
        for (sums, kept) in sums.iter_mut().zip(t.sums.as_chunks::<NR>().0) {
            for (sum, kept) in sums.iter_mut().zip(kept.as_chunks::<8>().0) {
                *sum = load(kept);
            }
        }
    }
    for (a, b) in a.iter().zip(b) {
        let (b, _) = b.as_chunks::<32>();
        let b = [load(&b[0]), load(&b[1])];
        for i in 0..R {
            let a = _mm256_set1_epi32(a[i]);
            sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(b[0], a));
            sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(b[1], a));
        }
    }
    let mut kept = [[0i32; NR]; R];
    let rows = if t.out.is_some() { &mut kept[..] } else { t.sums.as_chunks_mut::<NR>().0 };
    for (sums, kept) in sums.iter().zip(rows) {
        for (sum, kept) in sums.iter().zip(kept.as_chunks_mut::<8>().0) {
            // SAFETY: `kept` is 32 bytes.
            unsafe { _mm256_storeu_si256(kept.as_mut_ptr().cast(), *sum) };
        }
    }
    if let Some(out) = t.out {
        out.finish(&kept);
    }
}

/// Panels of columns: `[group][16 columns][2 steps]` in 16 bits.
#[target_feature(enable = "avx2")]
fn pack_b(src: &Operand<'_>, at: Part, dst: &mut [u8]) {
    let (groups, _) = dst.as_chunks_mut::<GROUP_B>();
    for (block, groups) in groups.chunks_mut(8).enumerate() {
        for half in 0..2 {
            let packed = block8(src, at, 8 * half, 16 * block);
            for (group, &v) in groups.iter_mut().zip(&packed) {
                let (halves, _) = group.as_chunks_mut::<32>();
                // SAFETY: half a group is 32 bytes.
                unsafe { _mm256_storeu_si256(halves[half].as_mut_ptr().cast(), v) };
            }
        }
    }
}

/// Panels of rows: `[group][row][2 steps]` in 16 bits.
#[target_feature(enable = "avx2")]
fn pack_a(src: &Operand<'_>, at: Part, dst: &mut [u8], rows: usize) {
    for (block, groups) in dst.chunks_mut(8 * 4 * rows).enumerate() {
        let packed = block8(src, at, 0, 16 * block);
        for (group, &v) in groups.chunks_exact_mut(4 * rows).zip(&packed) {
            let mut bytes = [0u8; 32];
            // SAFETY: `bytes` is 32 bytes.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) };
            group.copy_from_slice(&bytes[..4 * rows]);
        }
    }
}

/// Eight rows or columns from `outer` on by 16 steps from `k` on: vector `g` holds steps `2 g, 2 g + 1` of each,
/// widened; those beyond the part are zero.
#[inline]
#[target_feature(enable = "avx2")]
fn block8(src: &Operand<'_>, at: Part, outer: usize, k: usize) -> [__m256i; 8] {
    let (count, k_count) = (at.count.saturating_sub(outer).min(8), (at.k - k).min(16));
    let (outer, k0) = (at.outer + outer, at.k0 + k);
    if src.k_contiguous {
        let mut rows = [[0i8; 16]; 8];
        for (i, row) in rows.iter_mut().enumerate().take(count) {
            row[..k_count].copy_from_slice(src.stored(outer + i, k0, k_count));
        }
        return transpose8(rows.map(|row| {
            // SAFETY: `row` is 16 bytes.
            unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
        }))
        .map(|v| _mm256_cvtepi8_epi16(v));
    }
    let mut steps = [[0i8; 8]; 16];
    if count > 0 {
        for (j, step) in steps.iter_mut().enumerate().take(k_count) {
            step[..count].copy_from_slice(src.stored(k0 + j, outer, count));
        }
    }
    let mut v = [_mm256_setzero_si256(); 8];
    for (v, steps) in v.iter_mut().zip(steps.as_chunks::<2>().0) {
        let [even, odd] =
            steps.map(|step| _mm_cvtsi64_si128(i64::from_le_bytes(step.map(|b| b as u8))));
        *v = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd));
    }
    v
}

/// Transposes 8 x 8 words.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose8(r: [__m128i; 8]) -> [__m128i; 8] {
    let (mut t, mut u) = (r, r);
    for i in 0..4 {
        t[2 * i] = _mm_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    for i in (0..8).step_by(4) {
        u[i] = _mm_unpacklo_epi32(t[i], t[i + 2]);
        u[i + 1] = _mm_unpackhi_epi32(t[i], t[i + 2]);
        u[i + 2] = _mm_unpacklo_epi32(t[i + 1], t[i + 3]);
        u[i + 3] = _mm_unpackhi_epi32(t[i + 1], t[i + 3]);
    }
    for i in 0..4 {
        t[2 * i] = _mm_unpacklo_epi64(u[i], u[i + 4]);
        t[2 * i + 1] = _mm_unpackhi_epi64(u[i], u[i + 4]);
    }
    t
}

/// Dot products of up to 8 rows with stored columns.
#[target_feature(enable = "avx2")]
fn dot(p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
    for (c, sums) in sums.iter_mut().enumerate() {
        let b = p.b.stored(n0 + c, 0, p.k);
        for (m, sum) in sums.iter_mut().enumerate().take(p.m) {
            *sum = dot1(p.a.stored(m, 0, p.k), b);
        }
    }
}

/// One dot product.
#[inline]
#[target_feature(enable = "avx2")]
fn dot1(a: &[i8], b: &[i8]) -> i32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = _mm256_setzero_si256();
    for (a, b) in a.iter().zip(b) {
        let [a, b] = [a, b].map(|x| {
            // SAFETY: `x` is 16 bytes.
            _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
        });
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
    }
    let mut lanes = [0i32; 8];
    // SAFETY: `lanes` is 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
    let tail = a_tail.iter().zip(b_tail).map(|(&a, &b)| i32::from(a) * i32::from(b));
    lanes.iter().sum::<i32>() + tail.sum::<i32>()
}

/// Loads 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load<T: bytemuck::Pod, const N: usize>(from: &[T; N]) -> __m256i {
    const { assert!(size_of::<T>() * N == 32) };
    // SAFETY: `from` is 32 bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}
