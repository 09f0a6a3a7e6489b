//! AVX512-VNNI: `vpdpbusd` multiplies four unsigned by four signed bytes and adds them to an `i32`.
//!
//! The second operand is packed as `b + 128`, an unsigned byte; `sum a (b + 128) = sum a b + 128 sum a`, so the
//! sums of a row start at `-128 sum a`. Intermediate sums may wrap around; the final one fits, so it is exact.

use super::blocks::{Engine, Part, Tile};
use super::{Operand, Product};
use crate::Isa;
use crate::simd::Level;
use std::arch::x86_64::*;

/// The engine; its existence proves that the processor has AVX512-VNNI.
#[derive(Clone, Copy)]
pub(super) struct Vnni(());

/// Rows and columns of a tile: 24 accumulators, two registers of `b`, one broadcast of `a`.
const MR: usize = 12;
const NR: usize = 32;
/// Steps by which prefetches run ahead where steps are stored rows. Not more: rows that lie a power of two apart
/// share few places in the first-level cache.
const AHEAD: usize = 8;
/// Bytes of a group of four steps in a panel of columns.
const GROUP_B: usize = 4 * NR;

impl Vnni {
    /// Panics if `isa` does not include the instructions.
    pub(super) fn new(isa: Isa) -> Self {
        assert!(isa.0 >= Level::Vnni);
        Self(())
    }
}

impl Engine for Vnni {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = 4;
    const BYTES: usize = 1;

    fn panel_rows(rows: usize) -> usize {
        rows.next_multiple_of(4)
    }

    fn pack_a(self, src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
        if !src.k_contiguous {
            // SAFETY: `self` exists, so the processor has these instructions.
            return unsafe { pack_a_strided(src, at, dst, bias) };
        }
        let row_bytes = dst.len() / bias.len();
        for (first, at) in at.panels(MR) {
            let rows = Self::panel_rows(at.count);
            let dst = &mut dst[first * row_bytes..][..rows * row_bytes];
            // SAFETY: as above.
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
                4 => tile::<4>(t),
                8 => tile::<8>(t),
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const R: usize>(t: Tile<'_>) {
    let (a, _) = bytemuck::cast_slice::<u8, i32>(t.a).as_chunks::<R>();
    let (b, _) = t.b.as_chunks::<GROUP_B>();
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    if let Some(out) = &t.out {
        // While the products run, the result comes near: into the second level, since rows of a result often lie
        // a power of two apart and would displace each other, and the operands, in the first.
        for row in out.row_starts() {
            for col in [0, 16, NR - 1] {
                prefetch::<_MM_HINT_T1, _>(row.wrapping_add(col));
            }
        }
    }
    // Arrays of known length everywhere: else the accumulators would live in memory.
    let (bias, _) = t.bias.as_chunks::<R>();
    for i in 0..R {
        sums[i] = [_mm512_set1_epi32(bias[0][i]); 2];
    }
    if !t.first {
        let (kept, _) = t.sums.as_chunks::<NR>().0.as_chunks::<R>();
        for i in 0..R {
            let (kept, _) = kept[0][i].as_chunks::<16>();
            for h in 0..2 {
                sums[i][h] = _mm512_add_epi32(sums[i][h], load(&kept[h]));
            }
        }
    }
    for (a, b) in a.iter().zip(b) {
        let (b, _) = b.as_chunks::<64>();
        let b = [load(&b[0]), load(&b[1])];
        for i in 0..R {
            let a = _mm512_set1_epi32(a[i]);
            sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], b[0], a);
            sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], b[1], a);
        }
    }
    let Some(mut out) = t.out else {
        let (kept, _) = t.sums.as_chunks_mut::<NR>().0.as_chunks_mut::<R>();
        return store_sums(&sums, &mut kept[0]);
    };
    let (row_scale, col_scale, add) = (out.row_scale, out.col_scale, out.accumulate);
    let Some(rows) = out.whole::<R, NR>() else {
        let mut kept = [[0i32; NR]; R];
        store_sums(&sums, &mut kept);
        return out.finish(&kept);
    };
    let ((row_scale, _), (col_scale, _)) =
        (row_scale.as_chunks::<R>(), col_scale.as_chunks::<NR>());
    let col_scale = load_row(&col_scale[0]);
    for i in 0..R {
        finish_row(sums[i], row_scale[0][i], col_scale, add, rows[i]);
    }
}

/// Turns the complete sums of a whole row of a tile into floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn finish_row(
    sums: [__m512i; 2],
    row_scale: f32,
    col_scale: [__m512; 2],
    add: bool,
    row: &mut [f32; NR],
) {
    let row_scale = _mm512_set1_ps(row_scale);
    let (row, _) = row.as_chunks_mut::<16>();
    for h in 0..2 {
        let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[h]), row_scale);
        let mut value = _mm512_mul_ps(value, col_scale[h]);
        if add {
            value = _mm512_add_ps(load_ps(&row[h]), value);
        }
        // SAFETY: `row[h]` is 16 floats.
        unsafe { _mm512_storeu_ps(row[h].as_mut_ptr(), value) };
    }
}

/// Loads the factors of a row.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_row(from: &[f32; NR]) -> [__m512; 2] {
    let (halves, _) = from.as_chunks::<16>();
    [load_ps(&halves[0]), load_ps(&halves[1])]
}

/// Writes the sums of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_sums<const R: usize>(sums: &[[__m512i; 2]; R], to: &mut [[i32; NR]; R]) {
    for i in 0..R {
        for h in 0..2 {
            // SAFETY: half a row is 64 bytes.
            unsafe { _mm512_storeu_si512(to[i][16 * h..].as_mut_ptr().cast(), sums[i][h]) };
        }
    }
}

/// Panels of columns: `[group][half][16 columns][4 steps]`, each byte shifted by 128.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn pack_b(src: &Operand<'_>, at: Part, dst: &mut [u8]) {
    if !src.k_contiguous {
        return pack_b_strided(src, at, dst);
    }
    let shift = _mm512_set1_epi8(-128);
    let (groups, _) = dst.as_chunks_mut::<GROUP_B>();
    for (block, groups) in groups.chunks_mut(16).enumerate() {
        for half in 0..2 {
            let sub = at.block(16 * half, block);
            let columns = block16(src, sub);
            for (group, &v) in groups.iter_mut().zip(&columns) {
                let (halves, _) = group.as_chunks_mut::<64>();
                store(&mut halves[half], _mm512_xor_si512(v, shift));
            }
        }
    }
}

/// A panel of columns that are contiguous across.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn pack_b_strided(src: &Operand<'_>, at: Part, dst: &mut [u8]) {
    let shift = _mm512_set1_epi8(-128);
    let mask = u32::MAX >> (32 - at.count);
    for (k, group) in (0..at.k).step_by(4).zip(dst.as_chunks_mut::<GROUP_B>().0) {
        let mut step = [_mm256_setzero_si256(); 4];
        for (j, step) in step.iter_mut().enumerate() {
            if k + j < at.k {
                let row = src.stored(at.k0 + k + j, at.outer, at.count);
                prefetch::<_MM_HINT_T0, _>(row.as_ptr().wrapping_add(2 * AHEAD * src.stride));
                // SAFETY: `row` has `at.count` bytes, and the mask as many bits.
                *step = unsafe { _mm256_maskz_loadu_epi8(mask, row.as_ptr()) };
            }
        }
        let low = [_mm256_unpacklo_epi8(step[0], step[1]), _mm256_unpacklo_epi8(step[2], step[3])];
        let high = [_mm256_unpackhi_epi8(step[0], step[1]), _mm256_unpackhi_epi8(step[2], step[3])];
        // Lane `l` of vector `j` holds the four steps of columns `16 l + 4 j..16 l + 4 j + 4`.
        let v = [
            _mm256_unpacklo_epi16(low[0], low[1]),
            _mm256_unpackhi_epi16(low[0], low[1]),
            _mm256_unpacklo_epi16(high[0], high[1]),
            _mm256_unpackhi_epi16(high[0], high[1]),
        ];
        let v01 = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(v[0]), v[1]);
        let v23 = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(v[2]), v[3]);
        let (halves, _) = group.as_chunks_mut::<64>();
        store(&mut halves[0], _mm512_xor_si512(_mm512_shuffle_i64x2::<0x88>(v01, v23), shift));
        store(&mut halves[1], _mm512_xor_si512(_mm512_shuffle_i64x2::<0xdd>(v01, v23), shift));
    }
}

/// A panel of rows that are contiguous along the contraction: `[group][row][4 steps]`;
/// `bias[row] = -128 * sum` over the steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn pack_a(src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
    let rows = bias.len();
    let ones = _mm512_set1_epi8(1);
    let mut sums = _mm512_setzero_si512();
    for (block, groups) in dst.chunks_mut(16 * 4 * rows).enumerate() {
        let packed = block16(src, at.block(0, block));
        for (group, &v) in groups.chunks_exact_mut(4 * rows).zip(&packed) {
            sums = _mm512_dpbusd_epi32(sums, ones, v);
            // SAFETY: `group` is `rows <= 12` groups of 4 bytes, and the mask has `rows` bits.
            unsafe {
                _mm512_mask_storeu_epi32(group.as_mut_ptr().cast(), (1 << rows) - 1, v);
            }
        }
    }
    let mut each = [0u8; 64];
    store(&mut each, _mm512_slli_epi32::<7>(sums));
    for (bias, sum) in bias.iter_mut().zip(bytemuck::cast::<[u8; 64], [i32; 16]>(each)) {
        *bias = -sum; // At most 128 * 128 * MAX_K < 2^31.
    }
}

/// All panels of a task, from rows that are contiguous across: whole steps are loaded at once.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn pack_a_strided(src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
    const { assert!(Vnni::MC <= 64 && Vnni::MC.is_multiple_of(MR)) };
    let (mask, quads) = (u64::MAX >> (64 - at.count), bias.len() / 4);
    let row_bytes = dst.len() / bias.len();
    // Where the next group of each four rows goes, and how far apart its groups are.
    let mut place = [(0, 0); 16];
    for (quad, place) in place.iter_mut().enumerate().take(quads) {
        let first = 4 * quad / MR * MR;
        let panel_rows = MR.min(bias.len() - first);
        *place = (first * row_bytes + 4 * (4 * quad - first), 4 * panel_rows);
    }
    let ones = _mm512_set1_epi8(1);
    let mut sums = [_mm512_setzero_si512(); 4];
    for k in (0..at.k).step_by(4) {
        let mut step = [_mm512_setzero_si512(); 4];
        for (j, step) in step.iter_mut().enumerate() {
            if k + j < at.k {
                let row = src.stored(at.k0 + k + j, at.outer, at.count);
                let ahead = row.as_ptr().wrapping_add(AHEAD * src.stride);
                prefetch::<_MM_HINT_T0, _>(ahead);
                prefetch::<_MM_HINT_T0, _>(ahead.wrapping_add(at.count - 1));
                // SAFETY: `row` has `at.count` bytes, and the mask as many bits.
                *step = unsafe { _mm512_maskz_loadu_epi8(mask, row.as_ptr()) };
            }
        }
        let low = [_mm512_unpacklo_epi8(step[0], step[1]), _mm512_unpacklo_epi8(step[2], step[3])];
        let high = [_mm512_unpackhi_epi8(step[0], step[1]), _mm512_unpackhi_epi8(step[2], step[3])];
        // Lane `l` of vector `j` holds the four steps of rows `16 l + 4 j..16 l + 4 j + 4`.
        let v = [
            _mm512_unpacklo_epi16(low[0], low[1]),
            _mm512_unpackhi_epi16(low[0], low[1]),
            _mm512_unpacklo_epi16(high[0], high[1]),
            _mm512_unpackhi_epi16(high[0], high[1]),
        ];
        for j in 0..4 {
            sums[j] = _mm512_dpbusd_epi32(sums[j], ones, v[j]);
            let lanes = [
                _mm512_extracti32x4_epi32::<0>(v[j]),
                _mm512_extracti32x4_epi32::<1>(v[j]),
                _mm512_extracti32x4_epi32::<2>(v[j]),
                _mm512_extracti32x4_epi32::<3>(v[j]),
            ];
            for l in 0..4 {
                if 4 * l + j < quads {
                    let (at, step) = &mut place[4 * l + j];
                    let to = &mut dst[*at..*at + 16];
                    // SAFETY: `to` is 16 bytes.
                    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), lanes[l]) };
                    *at += *step;
                }
            }
        }
    }
    for (j, &sums) in sums.iter().enumerate() {
        let mut each = [0u8; 64];
        store(&mut each, _mm512_slli_epi32::<7>(sums));
        let each = bytemuck::cast::<[u8; 64], [[i32; 4]; 4]>(each);
        for (l, each) in each.iter().enumerate() {
            if let Some(bias) = bias.as_chunks_mut::<4>().0.get_mut(4 * l + j) {
                *bias = each.map(|sum| -sum); // At most 128 * 128 * MAX_K < 2^31.
            }
        }
    }
}

impl Part {
    /// The 16 rows or columns from `outer` on, and contraction steps `64 * block..`: empty beyond the end.
    #[inline(always)]
    pub(super) fn block(self, outer: usize, block: usize) -> Self {
        Self {
            outer: self.outer + outer,
            count: self.count.saturating_sub(outer).min(16),
            k0: self.k0 + 64 * block,
            k: self.k.saturating_sub(64 * block).min(64),
        }
    }
}

/// Up to 16 stored rows by 64 steps, one row in each vector; absent ones are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn rows16(src: &Operand<'_>, at: Part) -> [__m512i; 16] {
    let mut v = [_mm512_setzero_si512(); 16];
    if at.count == 0 {
        return v;
    }
    let mask = u64::MAX >> (64 - at.k);
    for (i, v) in v.iter_mut().enumerate() {
        if i < at.count {
            let row = src.stored(at.outer + i, at.k0, at.k);
            // Sixteen rows are too many streams for the hardware to follow: fetch the next sixteen.
            prefetch::<_MM_HINT_T0, _>(row.as_ptr().wrapping_add(16 * src.stride));
            // SAFETY: `row` has `at.k` bytes, and the mask as many bits.
            *v = unsafe { _mm512_maskz_loadu_epi8(mask, row.as_ptr()) };
        }
    }
    v
}

/// Up to 16 rows or columns by 64 steps: vector `g` holds steps `4 g..4 g + 4` of each, absent ones are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn block16(src: &Operand<'_>, at: Part) -> [__m512i; 16] {
    if src.k_contiguous {
        return transpose16(rows16(src, at));
    }
    let mut v = [_mm512_setzero_si512(); 16];
    if at.count == 0 {
        return v;
    }
    let mask = u16::MAX >> (16 - at.count);
    for (group, v) in v.iter_mut().enumerate() {
        if 4 * group >= at.k {
            break;
        }
        let mut step = [_mm_setzero_si128(); 4];
        for (j, step) in step.iter_mut().enumerate() {
            if 4 * group + j < at.k {
                let row = src.stored(at.k0 + 4 * group + j, at.outer, at.count);
                // SAFETY: `row` has `at.count` bytes, and the mask as many bits.
                *step = unsafe { _mm_maskz_loadu_epi8(mask, row.as_ptr()) };
            }
        }
        let low = [_mm_unpacklo_epi8(step[0], step[1]), _mm_unpacklo_epi8(step[2], step[3])];
        let high = [_mm_unpackhi_epi8(step[0], step[1]), _mm_unpackhi_epi8(step[2], step[3])];
        let z = _mm512_castsi128_si512(_mm_unpacklo_epi16(low[0], low[1]));
        let z = _mm512_inserti32x4::<1>(z, _mm_unpackhi_epi16(low[0], low[1]));
        let z = _mm512_inserti32x4::<2>(z, _mm_unpacklo_epi16(high[0], high[1]));
        *v = _mm512_inserti32x4::<3>(z, _mm_unpackhi_epi16(high[0], high[1]));
    }
    v
}

/// Transposes 16 x 16 dwords.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose16(r: [__m512i; 16]) -> [__m512i; 16] {
    let (mut t, mut u) = (r, r);
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in (0..16).step_by(4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for i in 0..4 {
        // 128-bit lanes: vector `i + 4 j` takes lane `j` of each of the four.
        let even = _mm512_shuffle_i32x4::<0x88>(u[i], u[i + 4]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(u[i], u[i + 4]);
        let even_high = _mm512_shuffle_i32x4::<0x88>(u[i + 8], u[i + 12]);
        let odd_high = _mm512_shuffle_i32x4::<0xdd>(u[i + 8], u[i + 12]);
        t[i] = _mm512_shuffle_i32x4::<0x88>(even, even_high);
        t[i + 4] = _mm512_shuffle_i32x4::<0x88>(odd, odd_high);
        t[i + 8] = _mm512_shuffle_i32x4::<0xdd>(even, even_high);
        t[i + 12] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_high);
    }
    t
}

/// Dot products of up to 8 rows with stored columns, four columns and four rows at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot(p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
    let mut bias = [0i32; 8];
    for (m, bias) in bias.iter_mut().enumerate().take(p.m) {
        let sum: i32 = p.a.stored(m, 0, p.k).iter().map(|&a| i32::from(a)).sum();
        *bias = -128 * sum;
    }
    for (c, sums) in sums.chunks_mut(4).enumerate() {
        // Columns beyond the end repeat the last one; their sums are dropped.
        let b = [0, 1, 2, 3].map(|i| p.b.stored(n0 + 4 * c + i.min(sums.len() - 1), 0, p.k));
        for m in (0..p.m).step_by(4) {
            let tile = match p.m - m {
                1 => dot4::<1>(p, m, b),
                2 => dot4::<2>(p, m, b),
                3 => dot4::<3>(p, m, b),
                _ => dot4::<4>(p, m, b),
            };
            for (i, tile) in tile.iter().enumerate().take(p.m - m) {
                for (sums, &sum) in sums.iter_mut().zip(tile) {
                    // Sums of shifted bytes may have wrapped around; the difference fits.
                    sums[m + i] = sum.wrapping_add(bias[m + i]);
                }
            }
        }
    }
}

/// `R` rows from `m` times four columns, without the bias.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot4<const R: usize>(p: &Product<'_>, m: usize, b: [&[i8]; 4]) -> [[i32; 4]; 4] {
    let shift = _mm512_set1_epi8(-128);
    let mut sums = [[_mm512_setzero_si512(); 4]; R];
    let mut a: [&[i8]; R] = [&[]; R];
    for (i, a) in a.iter_mut().enumerate() {
        *a = p.a.stored(m + i, 0, p.k);
    }
    let whole = p.k / 64 * 64;
    for k in (0..whole).step_by(64) {
        let b = b.map(|b| {
            // SAFETY: `k + 64 <= p.k`, the length of `b`.
            let b = unsafe { _mm512_loadu_si512(b.as_ptr().add(k).cast()) };
            _mm512_xor_si512(b, shift)
        });
        for (sums, a) in sums.iter_mut().zip(&a) {
            // SAFETY: `k + 64 <= p.k`, the length of `a`.
            let a = unsafe { _mm512_loadu_si512(a.as_ptr().add(k).cast()) };
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = _mm512_dpbusd_epi32(*sum, *b, a);
            }
        }
    }
    if whole < p.k {
        let mask = u64::MAX >> (64 - (p.k - whole));
        let b = b.map(|b| {
            // SAFETY: the mask has as many bits as `b` has bytes from `whole` on.
            let b = unsafe { _mm512_maskz_loadu_epi8(mask, b.as_ptr().add(whole)) };
            _mm512_xor_si512(b, shift)
        });
        for (sums, a) in sums.iter_mut().zip(&a) {
            // SAFETY: the mask has as many bits as `a` has bytes from `whole` on.
            let a = unsafe { _mm512_maskz_loadu_epi8(mask, a.as_ptr().add(whole)) };
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = _mm512_dpbusd_epi32(*sum, *b, a);
            }
        }
    }
    let mut out = [[0; 4]; 4];
    for (out, sums) in out.iter_mut().zip(&sums) {
        *out = sums.map(|sum| _mm512_reduce_add_epi32(sum));
    }
    out
}

/// Fetches a cache line that will be needed soon; what does not exist is ignored.
#[inline(always)]
fn prefetch<const HINT: i32, T>(from: *const T) {
    // SAFETY: a prefetch of any address is allowed.
    unsafe { _mm_prefetch::<HINT>(from.cast()) }
}

/// Loads 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: bytemuck::Pod, const N: usize>(from: &[T; N]) -> __m512i {
    const { assert!(size_of::<T>() * N == 64) };
    // SAFETY: `from` is 64 bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Loads 16 floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_ps(from: &[f32; 16]) -> __m512 {
    // SAFETY: `from` is 16 floats.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

/// Stores 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(to: &mut [u8; 64], v: __m512i) {
    // SAFETY: `to` is 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
}
