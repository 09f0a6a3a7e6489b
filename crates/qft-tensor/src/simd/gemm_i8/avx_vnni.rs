//! AVX-VNNI: `vpdpbusd` on 256 bits, for processors without AVX-512.
//!
//! As in [`super::vnni`], the second operand is packed as `b + 128`, and the sums of a row start at `-128 sum a`.

use super::avx2::{Avx2, load};
use super::blocks::{Engine, Part, Tile};
use super::{Operand, Product};
use crate::Isa;
use crate::simd::Level;
use std::arch::x86_64::*;

/// The engine; its existence proves that the processor has AVX2 and AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni(Avx2);

/// Rows and columns of a tile: 12 accumulators, two registers of `b`, one broadcast of `a`.
const MR: usize = 6;
const NR: usize = 16;
/// Bytes of a group of four steps in a panel of columns.
const GROUP_B: usize = 4 * NR;

impl AvxVnni {
    /// Panics if `isa` does not include the instructions.
    pub(super) fn new(isa: Isa) -> Self {
        assert_eq!(isa.0, Level::AvxVnni);
        Self(Avx2::new(isa))
    }
}

impl Engine for AvxVnni {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = 4;
    const BYTES: usize = 1;

    fn panel_rows(rows: usize) -> usize {
        rows.next_multiple_of(2)
    }

    fn pack_a(self, src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
        let row_bytes = dst.len() / bias.len();
        for (first, at) in at.panels(MR) {
            let rows = Self::panel_rows(at.count);
            let dst = &mut dst[first * row_bytes..][..rows * row_bytes];
            // SAFETY: `self` exists, so the processor has these instructions.
            unsafe { pack_a(src, at, dst, &mut bias[first..first + rows]) }
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

    /// Reading the columns takes the time, not the arithmetic, so AVX2 is as good.
    fn dot(self, p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
        self.0.dot(p, n0, sums);
    }
}

/// A tile of `R` rows, padding included.
#[target_feature(enable = "avx2,avxvnni")]
fn tile<const R: usize>(t: Tile<'_>) {
    let (a, _) = bytemuck::cast_slice::<u8, i32>(t.a).as_chunks::<R>();
    let (b, _) = t.b.as_chunks::<GROUP_B>();
    let (bias, _) = t.bias.as_chunks::<R>();
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for i in 0..R {
        sums[i] = [_mm256_set1_epi32(bias[0][i]); 2];
    }
    if !t.first {
        for (sums, kept) in sums.iter_mut().zip(t.sums.as_chunks::<NR>().0) {
            for (sum, kept) in sums.iter_mut().zip(kept.as_chunks::<8>().0) {
                *sum = _mm256_add_epi32(*sum, load(kept));
            }
        }
    }
    for (a, b) in a.iter().zip(b) {
        let (b, _) = b.as_chunks::<32>();
        let b = [load(&b[0]), load(&b[1])];
        for i in 0..R {
            let a = _mm256_set1_epi32(a[i]);
            sums[i][0] = _mm256_dpbusd_avx_epi32(sums[i][0], b[0], a);
            sums[i][1] = _mm256_dpbusd_avx_epi32(sums[i][1], b[1], a);
        }
    }
    let mut kept = [[0i32; NR]; R];
    let rows = if t.out.is_some() { &mut kept[..] } else { t.sums.as_chunks_mut::<NR>().0 };
    for (sums, kept) in sums.iter().zip(rows) {
        for (&sum, kept) in sums.iter().zip(kept.as_chunks_mut::<8>().0) {
            *kept = bytemuck::cast(store(sum));
        }
    }
    if let Some(out) = t.out {
        out.finish(&kept);
    }
}

/// Panels of columns: `[group][16 columns][4 steps]`, each byte shifted by 128.
#[target_feature(enable = "avx2")]
fn pack_b(src: &Operand<'_>, at: Part, dst: &mut [u8]) {
    let shift = _mm256_set1_epi8(-128);
    let (groups, _) = dst.as_chunks_mut::<GROUP_B>();
    for (block, groups) in groups.chunks_mut(8).enumerate() {
        for half in 0..2 {
            let packed = block8(src, at, 8 * half, 32 * block);
            for (group, &v) in groups.iter_mut().zip(&packed) {
                group.as_chunks_mut::<32>().0[half] = store(_mm256_xor_si256(v, shift));
            }
        }
    }
}

/// A panel of rows: `[group][row][4 steps]`; `bias[row] = -128 * sum` over the steps.
#[target_feature(enable = "avx2,avxvnni")]
fn pack_a(src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
    let rows = bias.len();
    let ones = _mm256_set1_epi8(1);
    let mut sums = _mm256_setzero_si256();
    for (block, groups) in dst.chunks_mut(8 * 4 * rows).enumerate() {
        let packed = block8(src, at, 0, 32 * block);
        for (group, &v) in groups.chunks_exact_mut(4 * rows).zip(&packed) {
            sums = _mm256_dpbusd_avx_epi32(sums, ones, v);
            group.copy_from_slice(&store(v)[..4 * rows]);
        }
    }
    let sums: [i32; 8] = bytemuck::cast(store(sums));
    for (bias, sum) in bias.iter_mut().zip(sums) {
        *bias = -128 * sum; // At most 128 * 128 * MAX_K < 2^31.
    }
}

/// Eight rows or columns from `outer` on by 32 steps from `k` on: vector `g` holds steps `4 g..4 g + 4` of
/// each; those beyond the part are zero.
#[inline]
#[target_feature(enable = "avx2")]
fn block8(src: &Operand<'_>, at: Part, outer: usize, k: usize) -> [__m256i; 8] {
    let (count, k_count) = (at.count.saturating_sub(outer).min(8), (at.k - k).min(32));
    let (outer, k0) = (at.outer + outer, at.k0 + k);
    if src.k_contiguous {
        let mut rows = [[0u8; 32]; 8];
        for (i, row) in rows.iter_mut().enumerate().take(count) {
            let stored = src.stored(outer + i, k0, k_count);
            row[..k_count].copy_from_slice(bytemuck::cast_slice(stored));
        }
        return transpose8(rows.each_ref().map(|row| load(row)));
    }
    let mut steps = [[0u8; 8]; 32];
    if count > 0 {
        for (j, step) in steps.iter_mut().enumerate().take(k_count) {
            let stored = src.stored(k0 + j, outer, count);
            step[..count].copy_from_slice(bytemuck::cast_slice(stored));
        }
    }
    let mut v = [_mm256_setzero_si256(); 8];
    for (v, steps) in v.iter_mut().zip(steps.as_chunks::<4>().0) {
        let s = steps.map(|step| _mm_cvtsi64_si128(i64::from_le_bytes(step)));
        let (low, high) = (_mm_unpacklo_epi8(s[0], s[1]), _mm_unpacklo_epi8(s[2], s[3]));
        *v = _mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high));
    }
    v
}

/// Transposes 8 x 8 dwords.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose8(r: [__m256i; 8]) -> [__m256i; 8] {
    let (mut t, mut u) = (r, r);
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in (0..8).step_by(4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for i in 0..4 {
        // The low halves of vectors `i` and `i + 4` belong to step group `i`, the high ones to `i + 4`.
        t[i] = _mm256_permute2x128_si256::<0x20>(u[i], u[i + 4]);
        t[i + 4] = _mm256_permute2x128_si256::<0x31>(u[i], u[i + 4]);
    }
    t
}

/// The bytes of a register.
#[inline]
#[target_feature(enable = "avx2")]
fn store(v: __m256i) -> [u8; 32] {
    let mut bytes = [0; 32];
    // SAFETY: `bytes` is 32 bytes.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) };
    bytes
}
