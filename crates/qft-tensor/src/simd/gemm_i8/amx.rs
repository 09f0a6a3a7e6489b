//! AMX-INT8: `tdpbssd` multiplies a tile of 16 x 64 bytes by one of 64 x 16 and adds to 16 x 16 `i32`.
//!
//! The compiler has no stable intrinsics for tiles, so a micro-kernel, its whole loop over the contraction
//! included, is one block of assembly. Operands are signed bytes, no shift is needed. Packing, the conversion
//! to floats and products of a few rows use AVX-512, which every processor with AMX has.

mod support;

pub(in crate::simd) use support::usable;

use super::blocks::{Engine, Part, Tile};
use super::vnni::{self, Vnni, block16, rows16, transpose16};
use super::{Operand, Product};
use crate::Isa;
use crate::simd::Level;
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// The engine; its existence proves that the processor has the instructions and the process may use tiles.
#[derive(Clone, Copy)]
pub(super) struct Amx(Vnni);

/// Rows and columns of a tile of the result: four registers, by two of each operand.
const MR: usize = 32;
const NR: usize = 32;
/// Rows of a register, and its contraction steps.
const ROWS: usize = 16;
const STEPS: usize = 64;
/// Bytes of a register.
const REGISTER: usize = ROWS * STEPS;
/// Bytes of a group of contraction steps in a panel of columns.
const GROUP_B: usize = STEPS * NR;
/// Bytes between rows of sums.
const SUMS_STRIDE: usize = NR * size_of::<i32>();

impl Amx {
    /// Panics if `isa` does not include the instructions.
    pub(super) fn new(isa: Isa) -> Self {
        assert_eq!(isa.0, Level::Amx);
        Self(Vnni::new(isa))
    }
}

impl Engine for Amx {
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = STEPS;
    const BYTES: usize = 1;
    // A panel of columns of 512 steps takes 16 KiB, which stay in the first cache while all panels of rows pass
    // by, from the second; so many rows share it that the third cache keeps up.
    const MC: usize = 128;
    const KC: usize = 512;
    const TASK_MACS: usize = 1 << 24;

    fn panel_rows(rows: usize) -> usize {
        rows.next_multiple_of(ROWS)
    }

    fn pack_a(self, src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]) {
        let row_bytes = dst.len() / bias.len();
        bias.fill(0);
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

    /// Tiles are configured for the duration of one task: so any thread can run one, and a thread that does
    /// something else has no tiles, which would be saved at each switch and keep the core from idling deeply.
    fn session(self, tiles: impl FnOnce()) {
        // SAFETY: `self` exists, so the process may use tiles.
        let _release = unsafe { Configured::new() };
        tiles();
    }

    fn tile(self, t: Tile<'_>) {
        // SAFETY: `self` exists, so the processor has these instructions; `session` configured the tiles.
        unsafe {
            match t.bias.len() {
                ROWS => tile::<ROWS>(t),
                _ => tile::<MR>(t),
            }
        }
    }

    fn dot(self, p: &Product<'_>, n0: usize, sums: &mut [[i32; 8]]) {
        self.0.dot(p, n0, sums);
    }
}

/// What `ldtilecfg` reads: palette 1, then bytes per row and rows of each register.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < 8 {
        row_bytes[i] = STEPS as u16;
        rows[i] = ROWS as u8;
        i += 1;
    }
    Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// All eight tile registers of this thread, at full size, until dropped.
pub(in crate::simd) struct Configured(());

impl Configured {
    /// # Safety
    ///
    /// [`usable`] holds, or `ldtilecfg` is emulated.
    pub(in crate::simd) unsafe fn new() -> Self {
        // SAFETY: `CONFIG` is the 64 bytes that the instruction reads.
        unsafe {
            asm!(
                "ldtilecfg [{config}]", config = in(reg) &raw const CONFIG,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self(())
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the registers were configured by `new`; nobody uses them after this.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

/// `sums (+)= a b` of 32 rows, a panel `[groups][2][16 rows][64 steps]`, by 32 columns, a panel
/// `[groups][2][16 groups of 4 steps][16 columns][4 steps]`, into `i32 [32, 32]`.
///
/// # Safety
///
/// The tiles of this thread are [`Configured`]; `a` and `b` have `2048 * groups` readable bytes, `groups > 0`;
/// `sums` has 4096 writable bytes, which hold sums if not `first`.
#[inline]
unsafe fn multiply32(groups: usize, a: *const u8, b: *const u8, sums: *mut i32, first: bool) {
    // SAFETY: the caller's promise; the pointers advance once per group.
    unsafe {
        asm!(
            "test {first:e}, {first:e}",
            "jz 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 3f",
            "2:",
            "tileloadd tmm0, [{sums} + {sums_stride}]",
            "tileloadd tmm1, [{sums} + {sums_stride} + 64]",
            "tileloadd tmm2, [{sums} + {sums_stride} + {below}]",
            "tileloadd tmm3, [{sums} + {sums_stride} + {below} + 64]",
            "3:",
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {stride}]",
            "tileloadd tmm7, [{b} + {stride} + {register}]",
            "tileloadd tmm5, [{a} + {stride} + {register}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "add {a}, 2 * {register}",
            "add {b}, 2 * {register}",
            "dec {groups}",
            "jnz 3b",
            "tilestored [{sums} + {sums_stride}], tmm0",
            "tilestored [{sums} + {sums_stride} + 64], tmm1",
            "tilestored [{sums} + {sums_stride} + {below}], tmm2",
            "tilestored [{sums} + {sums_stride} + {below} + 64], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            groups = inout(reg) groups => _,
            sums = in(reg) sums,
            first = in(reg) u32::from(first),
            stride = in(reg) STEPS,
            sums_stride = in(reg) SUMS_STRIDE,
            below = const ROWS * SUMS_STRIDE,
            register = const REGISTER,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// As [`multiply32`], for 16 rows: `a` is `[groups][16 rows][64 steps]`, the result `[16, 32]`.
///
/// # Safety
///
/// As for [`multiply32`], but `a` has `1024 * groups` bytes and `sums` 2048.
#[inline]
unsafe fn multiply16(groups: usize, a: *const u8, b: *const u8, sums: *mut i32, first: bool) {
    // SAFETY: the caller's promise; the pointers advance once per group.
    unsafe {
        asm!(
            "test {first:e}, {first:e}",
            "jz 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "jmp 3f",
            "2:",
            "tileloadd tmm0, [{sums} + {sums_stride}]",
            "tileloadd tmm1, [{sums} + {sums_stride} + 64]",
            "3:",
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {stride}]",
            "tileloadd tmm7, [{b} + {stride} + {register}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "add {a}, {register}",
            "add {b}, 2 * {register}",
            "dec {groups}",
            "jnz 3b",
            "tilestored [{sums} + {sums_stride}], tmm0",
            "tilestored [{sums} + {sums_stride} + 64], tmm1",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            groups = inout(reg) groups => _,
            sums = in(reg) sums,
            first = in(reg) u32::from(first),
            stride = in(reg) STEPS,
            sums_stride = in(reg) SUMS_STRIDE,
            register = const REGISTER,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Sums of a tile, one row on two cache lines.
#[repr(align(64))]
struct Block(MaybeUninit<[[i32; NR]; MR]>);

/// A tile of `R` rows, 16 or 32, padding included.
///
/// # Safety
///
/// The tiles of this thread are [`Configured`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const R: usize>(t: Tile<'_>) {
    const { assert!(R == ROWS || R == MR) };
    let groups = t.a.len() / (R * STEPS);
    assert!(groups > 0 && t.a.len() == groups * R * STEPS && t.b.len() == groups * GROUP_B);
    assert!(t.first || t.sums.len() == MR * NR);
    let mut block = Block(MaybeUninit::uninit());
    let sums = if t.sums.is_empty() { block.0.as_mut_ptr().cast() } else { t.sums.as_mut_ptr() };
    // SAFETY: lengths were compared above; both places for sums have `MR` rows of `NR`.
    unsafe {
        if R == ROWS {
            multiply16(groups, t.a.as_ptr(), t.b.as_ptr(), sums, t.first);
        } else {
            multiply32(groups, t.a.as_ptr(), t.b.as_ptr(), sums, t.first);
        }
    }
    let Some(mut out) = t.out else { return };
    // SAFETY: the product wrote `R` rows of `NR`.
    let sums: &[[i32; NR]; R] = unsafe { &*sums.cast_const().cast() };
    let (row_scale, col_scale, add) = (out.row_scale, out.col_scale, out.accumulate);
    let Some(rows) = out.whole::<R, NR>() else { return out.finish(sums) };
    let (col_scale, _) = col_scale.as_chunks::<NR>();
    let col_scale = vnni::load_row(&col_scale[0]);
    for ((row, sums), &row_scale) in rows.into_iter().zip(sums).zip(row_scale) {
        let (sums, _) = sums.as_chunks::<16>();
        let sums = [vnni::load(&sums[0]), vnni::load(&sums[1])];
        vnni::finish_row(sums, row_scale, col_scale, add, row);
    }
}

/// Panels of rows: `[group][register][16 rows][64 steps]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_a(src: &Operand<'_>, at: Part, dst: &mut [u8], rows: usize) {
    for (group, dst) in dst.chunks_exact_mut(rows * STEPS).enumerate() {
        for (half, register) in dst.as_chunks_mut::<REGISTER>().0.iter_mut().enumerate() {
            let part = at.block(ROWS * half, group);
            let v =
                if src.k_contiguous { rows16(src, part) } else { transpose16(block16(src, part)) };
            store_register(register, &v);
        }
    }
}

/// Panels of columns: `[group][register][16 groups of 4 steps][16 columns][4 steps]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_b(src: &Operand<'_>, at: Part, dst: &mut [u8]) {
    for (group, dst) in dst.as_chunks_mut::<GROUP_B>().0.iter_mut().enumerate() {
        for (half, register) in dst.as_chunks_mut::<REGISTER>().0.iter_mut().enumerate() {
            store_register(register, &block16(src, at.block(ROWS * half, group)));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_register(to: &mut [u8; REGISTER], rows: &[__m512i; ROWS]) {
    for (to, &v) in to.as_chunks_mut::<STEPS>().0.iter_mut().zip(rows) {
        vnni::store(to, v);
    }
}
