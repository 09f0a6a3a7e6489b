//! From a product to tiles: blocking, packing, threads.
//!
//! ```text
//! for a range of columns whose packed second operand fits SHARED_BYTES
//!     all threads pack it, in panels of NR columns
//!     each task, up to MC rows by some of the panels,
//!         for a range of the contraction, at most KC
//!             packs its rows of the first operand, in panels of MR
//!             for each panel of columns, for each panel of rows: one tile
//! ```
//!
//! Where the contraction is cut, tiles leave `i32` sums behind; the last range turns them into floats.

use super::scalar::{self, End};
use super::scratch::{Leaf, with_leaf, with_shared};
use super::{Operand, Product};
use rayon::prelude::*;
use std::marker::PhantomData;

/// Most bytes of the packed second operand: a panel of 32 columns and the longest contraction fit twice.
pub(super) const SHARED_BYTES: usize = 8 << 20;
/// Most bytes per thread: packed rows, unfinished sums, and two biases per row.
pub(super) const LEAF_BYTES: usize = 577 << 10;
/// Fewest rows of a task, if the result has as many: each panel of columns is read that often.
const MIN_MC: usize = 24;
/// Most columns of a task whose contraction is cut.
const CARRY_COLS: usize = 1024;
/// Panels that are packed together where the second operand is not contiguous along the contraction.
const PACK_PANELS: usize = 4;
/// Contraction steps of all of them before the next, or one group. Few, so that the lines of all steps stay in the
/// first-level cache even where stored rows lie a power of two apart.
const PACK_STEPS: usize = 16;
/// Multiply-adds of dot products that are worth a task of their own: they take as long as their bytes take from memory, and
/// a thread that has just worked is there at once.
const DOT_MACS: usize = 1 << 16;
/// Tasks that a large product is cut into, at least.
const TASKS: usize = 16;
/// Most rows of a product that is computed from dot products, without packing.
const DOT_ROWS: usize = 8;
/// Columns of a task of dot products.
const DOT_COLS: usize = 32;

static ONES: [f32; 32] = [1.0; 32];

/// The micro-kernel of one instruction set.
///
/// A packed panel holds groups of `KU` consecutive contraction steps, zero-padded to a whole number of groups;
/// the order inside a group is the engine's own.
pub(super) trait Engine: Copy + Send + Sync {
    /// Rows of a tile; divides `MC`.
    const MR: usize;
    /// Columns of a tile, at most 64.
    const NR: usize;
    /// Contraction steps in a group; divides 64.
    const KU: usize;
    /// Bytes of a packed element.
    const BYTES: usize;
    /// Most rows of a task: each panel of columns is read once per task.
    const MC: usize = 48;
    /// Longest range of the contraction that is packed at once; a multiple of 64.
    const KC: usize = 4096;
    /// Multiply-adds that are worth a task of their own.
    const TASK_MACS: usize = 1 << 21;

    /// Rows that a panel of `rows <= MR` rows is padded to.
    fn panel_rows(rows: usize) -> usize;

    /// Packs the rows of a task, at most `MC`, in panels of `MR` rows, the last one of
    /// `panel_rows(remaining)`; sets `bias` to what each row adds to all its sums over these steps.
    fn pack_a(self, src: &Operand<'_>, at: Part, dst: &mut [u8], bias: &mut [i32]);

    /// Packs columns `at.outer..` the same way into `NR` columns.
    fn pack_b(self, src: &Operand<'_>, at: Part, dst: &mut [u8]);

    /// Runs `tiles`, which computes tiles on this thread; an engine with registers of its own claims them here.
    fn session(self, tiles: impl FnOnce()) {
        tiles();
    }

    /// Computes one tile.
    fn tile(self, tile: Tile<'_>);

    /// `sums[c][m] = sum_k a(m, k) b(n0 + c, k)` of a product with at most 8 rows, both operands contiguous
    /// along the contraction.
    fn dot(self, p: &Product<'_>, n0: usize, sums: &mut [[i32; DOT_ROWS]]);
}

/// A part of an operand.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// First row or column of the result.
    pub(super) outer: usize,
    /// How many of them.
    pub(super) count: usize,
    /// First contraction step.
    pub(super) k0: usize,
    /// How many of them.
    pub(super) k: usize,
}

/// One tile of the result, over one range of the contraction.
pub(super) struct Tile<'a> {
    /// Packed rows.
    pub(super) a: &'a [u8],
    /// Packed columns.
    pub(super) b: &'a [u8],
    /// What the packed rows add to every sum.
    pub(super) bias: &'a [i32],
    /// `[MR, NR]`: sums over earlier ranges, or this range's result. Empty if there is one range only.
    pub(super) sums: &'a mut [i32],
    /// Whether `sums` holds nothing yet.
    pub(super) first: bool,
    /// Where the finished tile goes; absent if more ranges follow.
    pub(super) out: Option<OutTile<'a>>,
}

/// Where the words of a tile go.
pub(super) struct OutTile<'a> {
    cells: *mut u32,
    stride: usize,
    cols: usize,
    /// One factor per row.
    pub(super) row_scale: &'a [f32],
    /// One factor per column.
    pub(super) col_scale: &'a [f32],
    /// One inverse unit per row, if the words are whole numbers.
    inverse_units: Option<&'a [f32]>,
    /// Whether to add.
    pub(super) accumulate: bool,
    _cells: PhantomData<&'a mut [u32]>,
}

impl Part {
    /// Panels of at most `rows` rows: the place of each in the packed rows, and its part of the operand.
    pub(super) fn panels(self, rows: usize) -> impl Iterator<Item = (usize, Self)> {
        (0..self.count).step_by(rows).map(move |i| {
            (i, Self { outer: self.outer + i, count: rows.min(self.count - i), ..self })
        })
    }
}

impl OutTile<'_> {
    /// A row of the tile.
    #[inline(always)]
    pub(super) fn row(&mut self, i: usize) -> &mut [u32] {
        debug_assert!(i < self.row_scale.len());
        // SAFETY: `task` makes tiles whose rows, as many as `row_scale` has, lie inside the result and belong
        // to this tile alone; `&mut self` keeps two of them from being alive at once.
        unsafe { std::slice::from_raw_parts_mut(self.cells.add(i * self.stride), self.cols) }
    }

    /// All rows, if they are floats, there are `R`, and all columns exist.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn whole<const R: usize, const NR: usize>(&mut self) -> Option<[&mut [f32; NR]; R]> {
        if self.inverse_units.is_some() || self.row_scale.len() != R || self.cols != NR {
            return None;
        }
        let (first, stride) = (self.cells, self.stride);
        // SAFETY: as for `row`; the words are those of floats; rows do not overlap, since `check` compared the stride with the columns.
        Some(std::array::from_fn(|i| unsafe { &mut *first.add(i * stride).cast() }))
    }

    /// Where each row begins.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    pub(super) fn row_starts(&self) -> impl Iterator<Item = *const u32> {
        (0..self.row_scale.len()).map(|i| self.cells.wrapping_add(i * self.stride).cast_const())
    }

    /// Turns complete sums, rows of `NR`, into what the result has.
    #[inline(always)]
    pub(super) fn finish<const NR: usize>(mut self, sums: &[[i32; NR]]) {
        let (rows, cols, accumulate) = (self.row_scale, self.col_scale, self.accumulate);
        for (i, (sums, &scale)) in sums.iter().zip(rows).enumerate() {
            let row = |end: End, cells: &mut [u32]| {
                for ((cell, &sum), &col_scale) in cells.iter_mut().zip(sums).zip(cols) {
                    end.write(scalar::scaled(sum, Some(scale), Some(col_scale)), cell);
                }
            };
            // A loop for each case: within one, nothing is left to decide.
            match (self.inverse_units.map(|inverse| inverse[i]), accumulate) {
                (None, false) => row(End::Float { accumulate: false }, self.row(i)),
                (None, true) => row(End::Float { accumulate: true }, self.row(i)),
                (Some(inverse), false) => {
                    row(End::Units { inverse, accumulate: false }, self.row(i));
                }
                (Some(inverse), true) => row(End::Units { inverse, accumulate: true }, self.row(i)),
            }
        }
    }
}

/// The result, shared by tasks that write disjoint parts of it.
#[derive(Clone, Copy)]
struct Cells<'a>(*mut u32, PhantomData<&'a mut [u32]>);

impl Cells<'_> {
    /// # Safety
    ///
    /// The element must exist.
    unsafe fn at(self, index: usize) -> *mut u32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}

// SAFETY: tasks form references to disjoint ranges only: each element belongs to the task of its row block and
// column range, and no two tasks share both.
unsafe impl Send for Cells<'_> {}
// SAFETY: as above.
unsafe impl Sync for Cells<'_> {}

/// How a product is cut; depends on its shape only.
struct Plan {
    /// Contraction steps of a range, and after padding of all of them.
    kc: usize,
    k_padded: usize,
    /// Rows of a task.
    mc: usize,
    /// Panels of columns packed at once, and of a task.
    shared_panels: usize,
    task_panels: usize,
    /// Of a panel of columns.
    panel_bytes: usize,
}

impl Plan {
    fn new<E: Engine>(p: &Product<'_>) -> Self {
        let ranges = p.k.div_ceil(E::KC);
        let kc = p.k.div_ceil(ranges).next_multiple_of(64);
        let k_padded = p.k.next_multiple_of(E::KU);
        let panel_bytes = k_padded * E::NR * E::BYTES;
        let panels = p.n.div_ceil(E::NR);
        let most = (SHARED_BYTES / panel_bytes).max(1);
        let shared_panels = panels.div_ceil(panels.div_ceil(most));
        let macs = p.m.saturating_mul(p.k).saturating_mul(shared_panels * E::NR);
        let tasks = (macs / E::TASK_MACS).clamp(1, TASKS);
        // Rows first: tasks that share rows each pack them.
        let mc = p.m.div_ceil(tasks).max(MIN_MC).next_multiple_of(E::MR).min(E::MC);
        let mut task_panels = shared_panels.div_ceil(tasks.div_ceil(p.m.div_ceil(mc)));
        if ranges > 1 {
            task_panels = task_panels.min(CARRY_COLS / E::NR);
        }
        Self { kc, k_padded, mc, shared_panels, task_panels, panel_bytes }
    }
}

/// Computes the product; `p` has been checked and is not empty.
pub(super) fn run<E: Engine>(engine: E, p: &Product<'_>, out: &mut [u32]) {
    const {
        assert!(E::MC.is_multiple_of(E::MR) && E::KC.is_multiple_of(64));
        assert!(E::MR <= ONES.len() && E::NR <= ONES.len());
        let sums_and_bias = E::MC * (CARRY_COLS + 2) * size_of::<i32>();
        assert!(E::MC * E::KC * E::BYTES + sums_and_bias <= LEAF_BYTES);
    }
    if p.m <= DOT_ROWS && p.a.k_contiguous && p.b.k_contiguous {
        return dots(engine, p, out);
    }
    let plan = Plan::new::<E>(p);
    let cells = Cells(out.as_mut_ptr(), PhantomData);
    let row_blocks = p.m.div_ceil(plan.mc);
    // Stored steps hold several panels side by side: pack those together that share cache lines.
    let together = if p.b.k_contiguous { 1 } else { PACK_PANELS };
    with_shared(|shared| {
        for n0 in (0..p.n).step_by(plan.shared_panels * E::NR) {
            let cols = (plan.shared_panels * E::NR).min(p.n - n0);
            let panels = cols.div_ceil(E::NR);
            let packed = shared.bytes(panels * plan.panel_bytes);
            packed.par_chunks_mut(together * plan.panel_bytes).enumerate().for_each(
                |(i, panels)| {
                    pack_columns(engine, p, &plan, n0 + i * together * E::NR, panels);
                },
            );
            let packed = &*packed;
            let splits = panels.div_ceil(plan.task_panels);
            (0..row_blocks * splits).into_par_iter().with_max_len(1).for_each(|index| {
                let (block, split) = (index / splits, index % splits);
                let first = split * plan.task_panels;
                let last = (first + plan.task_panels).min(panels);
                let part = Part {
                    outer: n0 + first * E::NR,
                    count: cols.min(last * E::NR) - first * E::NR,
                    k0: 0,
                    k: p.k,
                };
                let packed = &packed[first * plan.panel_bytes..last * plan.panel_bytes];
                with_leaf(|leaf| {
                    let m0 = block * plan.mc;
                    engine.session(|| task(engine, p, &plan, leaf, m0, part, packed, cells));
                });
            });
        }
    });
}

/// Packs neighbouring panels of columns over the whole contraction, in the order of memory.
fn pack_columns<E: Engine>(engine: E, p: &Product<'_>, plan: &Plan, n0: usize, panels: &mut [u8]) {
    let step = if p.b.k_contiguous { plan.kc } else { PACK_STEPS.max(E::KU) };
    for k0 in (0..p.k).step_by(step) {
        let k = step.min(p.k - k0);
        for (i, panel) in panels.chunks_exact_mut(plan.panel_bytes).enumerate() {
            let n0 = n0 + i * E::NR;
            let at = Part { outer: n0, count: E::NR.min(p.n - n0), k0, k };
            let dst = &mut panel[k0 * E::NR * E::BYTES..];
            let bytes = k.next_multiple_of(E::KU) * E::NR * E::BYTES;
            engine.pack_b(&p.b, at, &mut dst[..bytes]);
        }
    }
}

/// Computes `mc` rows from `m0` of the columns in `part`, whose panels are `packed`.
#[allow(clippy::too_many_arguments)] // The task's coordinates, and what all tasks share.
fn task<E: Engine>(
    engine: E,
    p: &Product<'_>,
    plan: &Plan,
    leaf: &mut Leaf,
    m0: usize,
    part: Part,
    packed: &[u8],
    cells: Cells<'_>,
) {
    let rows = plan.mc.min(p.m - m0);
    let cut = plan.kc < p.k;
    let tile_sums = if cut { E::MR * E::NR } else { 0 };
    let row_panels = rows.div_ceil(E::MR);
    let whole = (row_panels - 1) * E::MR;
    let padded = whole + E::panel_rows(rows - whole);
    let panels = part.count.div_ceil(E::NR);
    let Leaf { a, bias, sums } = leaf;
    let a_bytes = row_panels * E::MR * plan.kc.min(plan.k_padded) * E::BYTES;
    let a = a.bytes(a_bytes);
    bias.resize(E::MC, 0);
    // Unfinished sums of one tile, or of all if they wait for another range of the contraction.
    let waiting = if cut { panels * row_panels } else { 1 } * tile_sums;
    let sums: &mut [i32] = bytemuck::cast_slice_mut(sums.bytes(4 * waiting));
    for k0 in (0..p.k).step_by(plan.kc) {
        let k = plan.kc.min(p.k - k0);
        let k_padded = k.next_multiple_of(E::KU);
        let a_bytes = |count: usize| E::panel_rows(count) * k_padded * E::BYTES;
        let at = Part { outer: m0, count: rows, k0, k };
        engine.pack_a(&p.a, at, &mut a[..padded * k_padded * E::BYTES], &mut bias[..padded]);
        for j in 0..panels {
            let n0 = part.outer + j * E::NR;
            let cols = E::NR.min(part.outer + part.count - n0);
            let b = &packed[j * plan.panel_bytes + k0 * E::NR * E::BYTES..];
            let b = &b[..k_padded * E::NR * E::BYTES];
            for i in (0..rows).step_by(E::MR) {
                let count = E::MR.min(rows - i);
                let index = if cut { j * row_panels + i / E::MR } else { 0 };
                let sums = &mut sums[index * tile_sums..][..tile_sums];
                let panel_rows = E::panel_rows(count);
                let out = (k0 + k == p.k).then(|| OutTile {
                    // SAFETY: row `m0 + i < m` and column `n0 < n`, so the element lies inside the result,
                    // whose length `check` compared with its shape.
                    cells: unsafe { cells.at((m0 + i) * p.out_stride + n0) },
                    stride: p.out_stride,
                    cols,
                    // Multiplying an integer by one changes no bit, so a missing scale may be a row of ones.
                    row_scale: p.row_scale.map_or(&ONES[..count], |s| &s[m0 + i..][..count]),
                    col_scale: p.col_scale.map_or(&ONES[..cols], |s| &s[n0..][..cols]),
                    inverse_units: p.inverse_units.map(|s| &s[m0 + i..][..count]),
                    accumulate: p.accumulate,
                    _cells: PhantomData,
                });
                engine.tile(Tile {
                    a: &a[i * k_padded * E::BYTES..][..a_bytes(count)],
                    b,
                    bias: &bias[i..i + panel_rows],
                    sums,
                    first: k0 == 0,
                    out,
                });
            }
        }
    }
}

/// The product of a few rows: every column is a stored row, read once and not packed.
fn dots<E: Engine>(engine: E, p: &Product<'_>, out: &mut [u32]) {
    let cells = Cells(out.as_mut_ptr(), PhantomData);
    let chunks = p.n.div_ceil(DOT_COLS);
    let chunks_per_task = (DOT_MACS / (DOT_COLS * p.k)).max(1);
    (0..chunks).into_par_iter().with_min_len(chunks_per_task).for_each(|chunk| {
        let n0 = chunk * DOT_COLS;
        let cols = DOT_COLS.min(p.n - n0);
        let mut sums = [[0; DOT_ROWS]; DOT_COLS];
        engine.dot(p, n0, &mut sums[..cols]);
        for m in 0..p.m {
            // SAFETY: `m < p.m` and `n0 + cols <= p.n`, inside the result by `check`; the columns belong to
            // this chunk alone, and the reference ends with this row.
            let row =
                unsafe { std::slice::from_raw_parts_mut(cells.at(m * p.out_stride + n0), cols) };
            let (row_scale, end) = (p.row_scale.map(|s| s[m]), p.end(m));
            for (c, (cell, sums)) in row.iter_mut().zip(&sums).enumerate() {
                let col_scale = p.col_scale.map(|s| s[n0 + c]);
                end.write(scalar::scaled(sums[m], row_scale, col_scale), cell);
            }
        }
    });
}
