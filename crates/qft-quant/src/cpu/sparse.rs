//! Products with the protected weights.
//!
//! Tokens lie along vector lanes: a tile of tokens is transposed, so that one weight meets many tokens at one
//! address. The sums of a row (forward) or column (backward) stay in registers.

use super::transpose::{Aligned, SIDE, TILE_ROWS, bytes, square};
use crate::protected::{ProtectedRow, ProtectedView};
use crate::{Error, SparseBackward, SparseForward};
use qft_tensor::numeric::widen_bf16;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;
use std::hint::black_box;
use std::ops::Range;

/// Tokens in a tile.
const TOKENS: usize = TILE_ROWS;

struct ForwardTile<'a> {
    /// Scratch `[K]`.
    tile: &'a mut [Aligned<[i8; TOKENS]>],
    x: &'a [i8],
    x_scale: &'a [f32],
    protected: ProtectedView<'a>,
    rows: Range<usize>,
    y: &'a mut [f32],
    stride: usize,
}

impl Kernel for ForwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        bytes(self.x, self.tile);
        let mut sums = [Aligned([0.0f32; TOKENS]); SIDE];
        for first in self.rows.clone().step_by(SIDE) {
            let count = SIDE.min(self.rows.end - first);
            for (n, sums) in (first..first + count).zip(&mut sums) {
                sums.0 = dot(&self.protected.row(n), self.tile);
            }
            let column = first - self.rows.start;
            for (group, scales) in self.x_scale.chunks(SIDE).enumerate() {
                let y = &mut self.y[group * SIDE * self.stride + column..];
                let sums = turned(&sums, group * SIDE);
                for (t, (&scale, sums)) in scales.iter().zip(sums.as_chunks::<SIDE>().0).enumerate()
                {
                    let y = &mut y[t * self.stride..][..count];
                    for (y, &sum) in y.iter_mut().zip(sums) {
                        *y += scale * sum;
                    }
                }
            }
        }
    }
}

/// The products of one row's protected weights with all tokens of a tile.
#[inline(always)]
fn dot(row: &ProtectedRow<'_>, tile: &[Aligned<[i8; TOKENS]>]) -> [f32; TOKENS] {
    let mut sums = [0.0f32; TOKENS];
    row.for_each(|col, value| {
        let value = widen_bf16(value);
        for (sum, &x) in sums.iter_mut().zip(&tile[col].0) {
            *sum = f32::from(x).mul_add(value, *sum);
        }
    });
    sums
}

/// `[t][i]` of the 16 tokens from `first` on, from 16 rows `[i][t]`.
#[inline(always)]
fn turned(rows: &[Aligned<[f32; TOKENS]>; SIDE], first: usize) -> [f32; SIDE * SIDE] {
    let mut block = [0.0; SIDE * SIDE];
    for (block, row) in block.as_chunks_mut::<SIDE>().0.iter_mut().zip(rows) {
        block.copy_from_slice(&row.0[first..first + SIDE]);
    }
    square(&block)
}

/// A protected weight, as the backward product reads it.
#[derive(Debug, Clone, Copy)]
struct ScaledWeight {
    /// The row, counted from the first one.
    row: u32,
    /// Its value in units of the row's scale.
    value: f32,
}

/// The protected weights of each column, rows rising; 8 bytes each.
///
/// Made once for all tiles.
struct Columns {
    all: Vec<ScaledWeight>,
    /// Where each column begins, and the end of the last.
    starts: Vec<usize>,
}

impl Columns {
    /// `scale` f32 `[N]`, of all rows of the matrix.
    fn new(protected: &ProtectedView<'_>, scale: &[f32], rows: Range<usize>, cols: usize) -> Self {
        let mut starts = vec![0; cols + 1];
        for n in rows.clone() {
            protected.row(n).for_each(|col, _| starts[col + 1] += 1);
        }
        for col in 0..cols {
            starts[col + 1] += starts[col];
        }
        let mut next = starts.clone();
        let mut all = vec![ScaledWeight { row: 0, value: 0.0 }; starts[cols]];
        for (row, n) in rows.enumerate() {
            let inverse = inverse(scale[n]);
            protected.row(n).for_each(|col, value| {
                all[next[col]] =
                    ScaledWeight { row: row as u32, value: widen_bf16(value) * inverse };
                next[col] += 1;
            });
        }
        Self { all, starts }
    }

    #[inline(always)]
    fn column(&self, col: usize) -> &[ScaledWeight] {
        &self.all[self.starts[col]..self.starts[col + 1]]
    }
}

/// Columns of `dx` that are added at a time.
const WIDTH: usize = 256;

/// What a worker of the backward product keeps between tiles.
struct BackwardScratch {
    /// Transposed gradient, `[rows.len()]` columns.
    tile: Vec<Aligned<[i8; TOKENS]>>,
    /// Sums of a block of columns, token by token. A row is one cache line longer than the block: lines a power of two
    /// apart would displace each other.
    sums: Box<Aligned<[[f32; WIDTH + SIDE]; TOKENS]>>,
}

struct BackwardTile<'a> {
    scratch: &'a mut BackwardScratch,
    dy: &'a [i8],
    dy_scale: &'a [f32],
    columns: &'a Columns,
    dx: &'a mut [f32],
    stride: usize,
    cols: usize,
}

impl Kernel for BackwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        bytes(self.dy, &mut self.scratch.tile);
        for begin in (0..self.cols).step_by(WIDTH) {
            let width = WIDTH.min(self.cols - begin);
            self.multiply(begin..begin + width);
            // Stretches of 1 KiB: single lines, a row apart, would take most of the time.
            for (t, (&scale, sums)) in self.dy_scale.iter().zip(&self.scratch.sums.0).enumerate() {
                let dx = &mut self.dx[t * self.stride + begin..][..width];
                for (dx, &sum) in dx.iter_mut().zip(sums) {
                    *dx += scale * sum;
                }
            }
        }
    }
}

impl BackwardTile<'_> {
    /// The sums of a block of columns.
    #[inline(always)]
    fn multiply(&mut self, block: Range<usize>) {
        let BackwardScratch { tile, sums } = &mut *self.scratch;
        let mut columns = [Aligned([0.0; TOKENS]); SIDE];
        for first in block.clone().step_by(SIDE) {
            for (col, sums) in (first..block.end).zip(&mut columns) {
                sums.0 = dot_column(self.columns.column(col), tile);
            }
            for (group, sums) in sums.0.chunks_mut(SIDE).enumerate() {
                let turned = Aligned(turned(&columns, group * SIDE));
                // Through memory: together with the stores below, LLVM would move the elements one by one.
                let turned = black_box(&turned);
                for (sums, turned) in sums.iter_mut().zip(turned.0.as_chunks::<SIDE>().0) {
                    sums[first - block.start..][..SIDE].copy_from_slice(turned);
                }
            }
        }
    }
}

/// The products of one column's protected weights with all tokens of a tile.
#[inline(always)]
fn dot_column(column: &[ScaledWeight], tile: &[Aligned<[i8; TOKENS]>]) -> [f32; TOKENS] {
    let mut sums = [0.0f32; TOKENS];
    for &ScaledWeight { row, value } in column {
        for (sum, &dy) in sums.iter_mut().zip(&tile[row as usize].0) {
            *sum = f32::from(dy).mul_add(value, *sum);
        }
    }
    sums
}

/// What takes a protected weight to units of its row's scale. No encoder makes a scale without a finite inverse; the integers of
/// such a row are zero, and its protected weights must not turn them into NaN.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 }
}

pub(super) fn forward(cpu: &Cpu, op: SparseForward<'_>) -> Result<(), Error> {
    op.check()?;
    let SparseForward { x, weight, rows, mut y } = op;
    let Some(protected) = &weight.protected else { return Ok(()) };
    if rows.is_empty() || x.rows() == 0 {
        return Ok(());
    }
    let (cols, stride, isa) = (weight.cols(), y.stride(), cpu.isa());
    let protected = ProtectedView::new(protected, cols)?;
    let (x, x_scale) = (x.q.host()?, x.scale.host()?);
    let tasks = y.host_mut()?.par_chunks_mut(TOKENS * stride).zip(x.par_chunks(TOKENS * cols));
    let tasks = tasks.zip(x_scale.par_chunks(TOKENS));
    cpu.install(|| {
        tasks.for_each_init(
            || vec![Aligned([0; TOKENS]); cols],
            |tile, ((y, x), x_scale)| {
                let rows = rows.clone();
                isa.run(ForwardTile { tile, x, x_scale, protected, rows, y, stride });
            },
        );
    });
    Ok(())
}

pub(super) fn backward(cpu: &Cpu, op: SparseBackward<'_>) -> Result<(), Error> {
    op.check()?;
    let SparseBackward { dy, weight, rows, mut dx } = op;
    let Some(protected) = &weight.protected else { return Ok(()) };
    if rows.is_empty() || dy.rows() == 0 {
        return Ok(());
    }
    let (cols, stride, isa) = (weight.cols(), dx.stride(), cpu.isa());
    let protected = ProtectedView::new(protected, cols)?;
    let columns = Columns::new(&protected, weight.scale.host()?, rows.clone(), cols);
    let (dy, dy_scale) = (dy.q.host()?, dy.scale.host()?);
    let tasks = dx.host_mut()?.par_chunks_mut(TOKENS * stride);
    let tasks = tasks.zip(dy.par_chunks(TOKENS * rows.len())).zip(dy_scale.par_chunks(TOKENS));
    cpu.install(|| {
        tasks.for_each_init(
            || BackwardScratch {
                tile: vec![Aligned([0; TOKENS]); rows.len()],
                sums: Box::new(Aligned([[0.0; WIDTH + SIDE]; TOKENS])),
            },
            |scratch, ((dx, dy), dy_scale)| {
                isa.run(BackwardTile {
                    scratch,
                    dy,
                    dy_scale,
                    columns: &columns,
                    dx,
                    stride,
                    cols,
                });
            },
        );
    });
    Ok(())
}
