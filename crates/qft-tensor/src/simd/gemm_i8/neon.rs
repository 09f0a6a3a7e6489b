//! NEON: `sdot` adds four signed products to each `i32`; `smmla`, where it exists, multiplies 2 x 8 by 8 x 2 bytes.
//!
//! The compiler has no stable intrinsics for either, so each is one line of assembly; the compiler allocates the
//! registers and schedules around it. Operands are signed bytes: no shift, no bias.

use super::blocks::{Engine, Part, Tile};
use super::{Operand, Product};
use crate::Isa;
use crate::simd::Level;
use std::arch::aarch64::*;
use std::arch::asm;

/// The engine on `sdot`; its existence proves that the processor has it.
#[derive(Clone, Copy)]
pub(super) struct Dot(());

/// The engine on `smmla`; its existence proves that the processor has that, and `sdot`.
#[derive(Clone, Copy)]
pub(super) struct Matrix(Dot);

/// Rows and columns of a tile: 24 accumulators.
const MR: usize = 8;
const NR: usize = 12;
/// Rows or columns whose steps fill a register.
const QUAD: usize = 4;
/// Contraction steps that are packed at once.
const STEPS: usize = 16;

impl Dot {
    /// Panics if `isa` does not include the instruction.
    pub(super) fn new(isa: Isa) -> Self {
        assert!(isa.0 >= Level::DotProduct);
        Self(())
    }
}

impl Matrix {
    /// Panics if `isa` does not include the instruction.
    pub(super) fn new(isa: Isa) -> Self {
        assert_eq!(isa.0, Level::I8mm);
        Self(Dot::new(isa))
    }
}

impl Engine for Dot {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = 4;
    const BYTES: usize = 1;

    fn panel_rows(rows: usize) -> usize {
        rows.next_multiple_of(QUAD)
    }

    fn pack_a(self, src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
        pack_rows::<false>(src, at, dst, bias);
    }

    fn pack_b(self, src: &Operand<'_>, at: Part, dst: &mut [u8]) {
        pack::<false>(src, at, dst, NR / QUAD);
    }

    fn tile(self, t: Tile<'_>) {
        // SAFETY: `self` exists, so the processor has the instruction.
        unsafe {
            match t.bias.len() {
                QUAD => dot_tile::<QUAD>(t),
                _ => dot_tile::<MR>(t),
            }
        }
    }

    fn dot(self, p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
        // SAFETY: `self` exists, so the processor has the instruction.
        unsafe { dot(p, n0, sums) }
    }
}

impl Engine for Matrix {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = 8;
    const BYTES: usize = 1;

    fn panel_rows(rows: usize) -> usize {
        rows.next_multiple_of(QUAD)
    }

    fn pack_a(self, src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
        pack_rows::<true>(src, at, dst, bias);
    }

    fn pack_b(self, src: &Operand<'_>, at: Part, dst: &mut [u8]) {
        pack::<true>(src, at, dst, NR / QUAD);
    }

    fn tile(self, t: Tile<'_>) {
        // SAFETY: `self` exists, so the processor has the instruction.
        unsafe {
            match t.bias.len() {
                QUAD => matrix_tile::<{ QUAD / 2 }>(t),
                _ => matrix_tile::<{ MR / 2 }>(t),
            }
        }
    }

    /// Reading the columns takes the time, not the arithmetic, so `sdot` is as good.
    fn dot(self, p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
        self.0.dot(p, n0, sums);
    }
}

/// `sum[i] + sum_j b[4 i + j] a[4 LANE + j]` for each of four columns `i`.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot_lane<const LANE: usize>(mut sum: int32x4_t, b: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: register arithmetic; the processor has the instruction, as the caller does.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
            sum = inout(vreg) sum, b = in(vreg) b, a = in(vreg) a, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// `sum[i] + sum_j b[4 i + j] a[4 i + j]`.
#[inline]
#[target_feature(enable = "dotprod")]
pub(in crate::simd) fn sdot(mut sum: int32x4_t, b: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {b:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum, b = in(vreg) b, a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// `sum[2 i + j] + sum_k a[8 i + k] b[8 j + k]` for two rows `i` and two columns `j`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(in crate::simd) fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// A tile of `R` rows, padding included.
#[target_feature(enable = "dotprod")]
fn dot_tile<const R: usize>(t: Tile<'_>) {
    let mut sums = [[vdupq_n_s32(0); NR / 4]; R];
    if !t.first {
        for (sums, kept) in sums.iter_mut().zip(t.sums.as_chunks::<NR>().0) {
            for (sum, kept) in sums.iter_mut().zip(kept.as_chunks::<4>().0) {
                *sum = load_i32(kept);
            }
        }
    }
    let (b, _) = t.b.as_chunks::<{ 4 * NR }>();
    for (a, b) in t.a.chunks_exact(4 * R).zip(b) {
        let (a, _) = a.as_chunks::<16>();
        let (b, _) = b.as_chunks::<16>();
        let b = [load(&b[0]), load(&b[1]), load(&b[2])];
        for quad in 0..R / QUAD {
            let a = load(&a[quad]);
            for (j, &b) in b.iter().enumerate() {
                let i = QUAD * quad;
                sums[i][j] = sdot_lane::<0>(sums[i][j], b, a);
                sums[i + 1][j] = sdot_lane::<1>(sums[i + 1][j], b, a);
                sums[i + 2][j] = sdot_lane::<2>(sums[i + 2][j], b, a);
                sums[i + 3][j] = sdot_lane::<3>(sums[i + 3][j], b, a);
            }
        }
    }
    let mut kept = [[0; NR]; R];
    let rows = if t.out.is_some() { &mut kept[..] } else { t.sums.as_chunks_mut::<NR>().0 };
    for (sums, kept) in sums.iter().zip(rows) {
        for (&sum, kept) in sums.iter().zip(kept.as_chunks_mut::<4>().0) {
            *kept = store_i32(sum);
        }
    }
    if let Some(out) = t.out {
        out.finish(&kept);
    }
}

/// A tile of `P` pairs of rows, padding included.
#[target_feature(enable = "neon,i8mm")]
fn matrix_tile<const P: usize>(t: Tile<'_>) {
    let mut sums = [[vdupq_n_s32(0); NR / 2]; P];
    if !t.first {
        let (pairs, _) = t.sums.as_chunks::<{ 2 * NR }>();
        for (sums, kept) in sums.iter_mut().zip(pairs) {
            for (j, sum) in sums.iter_mut().enumerate() {
                let [upper, lower] = [2 * j, NR + 2 * j];
                *sum = load_i32(&[kept[upper], kept[upper + 1], kept[lower], kept[lower + 1]]);
            }
        }
    }
    // Arrays of known length everywhere: else the accumulators would live in memory.
    let (a, _) = t.a.as_chunks::<16>().0.as_chunks::<P>();
    let (b, _) = t.b.as_chunks::<16>().0.as_chunks::<{ NR / 2 }>();
    for (a, b) in a.iter().zip(b) {
        let mut rows = [vdupq_n_s8(0); P];
        for i in 0..P {
            rows[i] = load(&a[i]);
        }
        for j in 0..NR / 2 {
            let b = load(&b[j]);
            for i in 0..P {
                sums[i][j] = smmla(sums[i][j], rows[i], b);
            }
        }
    }
    let mut kept = [[[0; NR]; 2]; P];
    for (sums, [upper, lower]) in sums.iter().zip(&mut kept) {
        for (j, &sum) in sums.iter().enumerate() {
            let sum = store_i32(sum);
            upper[2 * j..][..2].copy_from_slice(&sum[..2]);
            lower[2 * j..][..2].copy_from_slice(&sum[2..]);
        }
    }
    match t.out {
        Some(out) => out.finish(kept.as_flattened()),
        None => t.sums[..2 * P * NR].copy_from_slice(kept.as_flattened().as_flattened()),
    }
}

/// The rows of a task, in panels of `MR`.
fn pack_rows<const PAIRS: bool>(src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
    bias.fill(0);
    let row_bytes = dst.len() / bias.len();
    for (first, at) in at.panels(MR) {
        let quads = at.count.div_ceil(QUAD);
        let dst = &mut dst[first * row_bytes..][..QUAD * quads * row_bytes];
        pack::<PAIRS>(src, at, dst, quads);
    }
}

/// A panel of rows or columns: `[group][4 * quads][4 steps]`, or, in pairs,
/// `[group][2 * quads][2][8 steps]`.
fn pack<const PAIRS: bool>(src: &Operand<'_>, at: Part, dst: &mut [u8], quads: usize) {
    for (block, dst) in dst.chunks_mut(QUAD * quads * STEPS).enumerate() {
        // SAFETY: every aarch64 processor has NEON.
        let groups = unsafe { groups(src, at, STEPS * block) };
        let (vectors, _) = dst.as_chunks_mut::<16>();
        for (place, to) in vectors.iter_mut().enumerate() {
            *to = if PAIRS {
                let (group, pair) = (place / (2 * quads), place % (2 * quads));
                let [first, second] = [0, 1].map(|half| groups[2 * group + half][pair / 2]);
                // SAFETY: as above.
                unsafe { store(pair_of(first, second, pair % 2)) }
            } else {
                // SAFETY: as above.
                unsafe { store(groups[place / quads][place % quads]) }
            };
        }
    }
}

/// Eight steps of two neighbours, the first or the second ones of four, from four steps and the next four.
#[inline]
#[target_feature(enable = "neon")]
fn pair_of(first: int8x16_t, second: int8x16_t, which: usize) -> int8x16_t {
    let (first, second) = (vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second));
    vreinterpretq_s8_s32(if which == 0 {
        vzip1q_s32(first, second)
    } else {
        vzip2q_s32(first, second)
    })
}

/// Up to 16 rows or columns by 16 steps from `k` on: vector `[g][q]` holds steps `4 g..4 g + 4` of rows
/// `4 q..4 q + 4`; those beyond the part are zero.
#[inline]
#[target_feature(enable = "neon")]
fn groups(src: &Operand<'_>, at: Part, k: usize) -> [[int8x16_t; 4]; 4] {
    let (count, k_count) = (at.count.min(16), (at.k - k).min(STEPS));
    let mut v = [[vdupq_n_s8(0); 4]; 4];
    if src.k_contiguous {
        for (first, at) in at.panels(QUAD) {
            let mut rows = [[0u8; STEPS]; QUAD];
            for (i, row) in rows.iter_mut().enumerate().take(at.count) {
                let stored = src.stored(at.outer + i, at.k0 + k, k_count);
                row[..k_count].copy_from_slice(bytemuck::cast_slice(stored));
            }
            let r = [0, 1, 2, 3].map(|i| vreinterpretq_s32_s8(load(&rows[i])));
            // Transposes 4 x 4 dwords.
            let even = [vtrn1q_s32(r[0], r[1]), vtrn1q_s32(r[2], r[3])];
            let odd = [vtrn2q_s32(r[0], r[1]), vtrn2q_s32(r[2], r[3])];
            for (g, [upper, lower]) in [even, odd].into_iter().enumerate() {
                let (upper, lower) = (vreinterpretq_s64_s32(upper), vreinterpretq_s64_s32(lower));
                v[g][first / QUAD] = vreinterpretq_s8_s64(vzip1q_s64(upper, lower));
                v[g + 2][first / QUAD] = vreinterpretq_s8_s64(vzip2q_s64(upper, lower));
            }
        }
        return v;
    }
    for (g, v) in v.iter_mut().enumerate().take(k_count.div_ceil(4)) {
        let mut steps = [[0u8; 16]; 4];
        for (j, step) in steps.iter_mut().enumerate().take(k_count - 4 * g) {
            let stored = src.stored(at.k0 + k + 4 * g + j, at.outer, count);
            step[..count].copy_from_slice(bytemuck::cast_slice(stored));
        }
        let s = [0, 1, 2, 3].map(|j| load(&steps[j]));
        let low = [vzip1q_s8(s[0], s[1]), vzip1q_s8(s[2], s[3])].map(|x| vreinterpretq_s16_s8(x));
        let high = [vzip2q_s8(s[0], s[1]), vzip2q_s8(s[2], s[3])].map(|x| vreinterpretq_s16_s8(x));
        *v = [
            vzip1q_s16(low[0], low[1]),
            vzip2q_s16(low[0], low[1]),
            vzip1q_s16(high[0], high[1]),
            vzip2q_s16(high[0], high[1]),
        ]
        .map(|x| vreinterpretq_s8_s16(x));
    }
    v
}

/// Dot products of up to 8 rows with stored columns: each column is read once for all rows.
#[target_feature(enable = "dotprod")]
fn dot(p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
    for (c, sums) in sums.iter_mut().enumerate() {
        let (b, b_tail) = p.b.stored(n0 + c, 0, p.k).as_chunks::<16>();
        let mut lanes = [vdupq_n_s32(0); 8];
        for (k, b) in b.iter().enumerate() {
            let b = load(b);
            for (m, lanes) in lanes.iter_mut().enumerate().take(p.m) {
                *lanes = sdot(*lanes, b, load(&p.a.stored(m, 16 * k, 16).as_chunks::<16>().0[0]));
            }
        }
        for (m, (sum, lanes)) in sums.iter_mut().zip(lanes).enumerate().take(p.m) {
            let a_tail = p.a.stored(m, 16 * b.len(), b_tail.len());
            let tail = a_tail.iter().zip(b_tail).map(|(&a, &b)| i32::from(a) * i32::from(b));
            *sum = vaddvq_s32(lanes) + tail.sum::<i32>();
        }
    }
}

/// Loads 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
fn load<T: bytemuck::Pod>(from: &[T; 16]) -> int8x16_t {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: `from` is 16 bytes.
    unsafe { vld1q_s8(from.as_ptr().cast()) }
}

/// Loads four sums.
#[inline]
#[target_feature(enable = "neon")]
fn load_i32(from: &[i32; 4]) -> int32x4_t {
    // SAFETY: `from` is four integers.
    unsafe { vld1q_s32(from.as_ptr()) }
}

/// The bytes of a register.
#[inline]
#[target_feature(enable = "neon")]
fn store(v: int8x16_t) -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: `bytes` is 16 bytes.
    unsafe { vst1q_u8(bytes.as_mut_ptr(), vreinterpretq_u8_s8(v)) };
    bytes
}

/// Four sums of a register.
#[inline]
#[target_feature(enable = "neon")]
fn store_i32(v: int32x4_t) -> [i32; 4] {
    let mut sums = [0; 4];
    // SAFETY: `sums` is four integers.
    unsafe { vst1q_s32(sums.as_mut_ptr(), v) };
    sums
}
