//! Products with the protected features.
//!
//! Tokens lie along vector lanes: a tile of tokens is transposed, so that one feature meets many tokens at one
//! address. Forward keeps the sums of a row in registers; backward adds to a transposed tile of `dx`.

use crate::outlier::{OutlierView, RowView};
use crate::{Error, SparseBackward, SparseForward};
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens in a tile of the forward product: a column of the tile is a cache line of INT8.
const FORWARD: usize = 64;

/// Tokens in a tile of the backward product.
const BACKWARD: usize = 32;

/// Side of the square blocks that are transposed at once.
const SIDE: usize = 16;

/// Columns of `x` transposed at a time: the part of the tile they fill stays in the first-level cache.
const STRIP: usize = 128;

struct ForwardTile<'a> {
    x: &'a [i8],
    x_scale: &'a [f32],
    cols: usize,
    outliers: OutlierView<'a>,
    rows: Range<usize>,
    y: &'a mut [f32],
    stride: usize,
}

impl Kernel for ForwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let tokens = self.x_scale.len();
        let mut tile = vec![[0i8; FORWARD]; self.cols];
        transpose_bytes(self.x, self.cols, &mut tile);
        let mut sums = [[0.0f32; FORWARD]; SIDE];
        for first in self.rows.clone().step_by(SIDE) {
            let count = SIDE.min(self.rows.end - first);
            for (n, sums) in (first..first + count).zip(&mut sums) {
                *sums = dot(&self.outliers.row(n), &tile);
            }
            let column = first - self.rows.start;
            for (t, &scale) in self.x_scale.iter().enumerate().take(tokens) {
                let y = &mut self.y[t * self.stride + column..][..count];
                for (y, sums) in y.iter_mut().zip(&sums) {
                    *y += scale * sums[t];
                }
            }
        }
    }
}

/// The products of one row's features with all tokens of a tile.
#[inline(always)]
fn dot(row: &RowView<'_>, tile: &[[i8; FORWARD]]) -> [f32; FORWARD] {
    let mut sums = [0.0f32; FORWARD];
    row.for_each(|col, value| {
        let value = value.to_f32();
        for (sum, &x) in sums.iter_mut().zip(&tile[col]) {
            *sum = f32::from(x).mul_add(value, *sum);
        }
    });
    sums
}

/// `tile[c][t] = x[t][c]`, up to 64 tokens; four rows are packed into one word, then words are scattered.
#[inline(always)]
fn transpose_bytes(x: &[i8], cols: usize, tile: &mut [[i8; FORWARD]]) {
    let zeros = [0; STRIP];
    for (s, strip) in tile.chunks_mut(STRIP).enumerate() {
        let width = strip.len();
        for (quad, rows) in x.chunks(4 * cols).enumerate() {
            let row = |i: usize| -> &[i8] {
                rows.get(i * cols + s * STRIP..).map_or(&zeros[..width], |row| &row[..width])
            };
            let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
            let mut words = [[0i8; 4]; STRIP];
            for (i, word) in words[..width].iter_mut().enumerate() {
                *word = [r0[i], r1[i], r2[i], r3[i]];
            }
            for (column, word) in strip.iter_mut().zip(&words) {
                column.as_chunks_mut::<4>().0[quad] = *word;
            }
        }
    }
}

struct BackwardTile<'a> {
    dy: &'a [f32],
    dy_stride: usize,
    tokens: usize,
    cols: usize,
    outliers: OutlierView<'a>,
    rows: Range<usize>,
    dx: &'a mut [f32],
    stride: usize,
}

impl Kernel for BackwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut sums = vec![[0.0f32; BACKWARD]; self.cols];
        let mut dy = [[0.0f32; BACKWARD]; SIDE];
        for first in self.rows.clone().step_by(SIDE) {
            let count = SIDE.min(self.rows.end - first);
            for t in 0..self.tokens {
                let from = &self.dy[t * self.dy_stride + first - self.rows.start..][..count];
                for (column, &value) in dy.iter_mut().zip(from) {
                    column[t] = value;
                }
            }
            for (n, dy) in (first..first + count).zip(&dy) {
                self.outliers.row(n).for_each(|col, value| {
                    let value = value.to_f32();
                    for (sum, &dy) in sums[col].iter_mut().zip(dy) {
                        *sum = dy.mul_add(value, *sum);
                    }
                });
            }
        }
        for (c, sums) in sums.chunks(SIDE).enumerate() {
            for t in 0..self.tokens {
                let dx = &mut self.dx[t * self.stride + c * SIDE..][..sums.len()];
                for (dx, sums) in dx.iter_mut().zip(sums) {
                    *dx += sums[t];
                }
            }
        }
    }
}

pub(super) fn forward(cpu: &Cpu, op: SparseForward<'_>) -> Result<(), Error> {
    op.check()?;
    let SparseForward { x, weight, rows, mut y } = op;
    let Some(outliers) = &weight.outliers else { return Ok(()) };
    if rows.is_empty() || x.rows() == 0 {
        return Ok(());
    }
    let (cols, stride, isa) = (weight.cols(), y.stride(), cpu.isa());
    let outliers = OutlierView::new(outliers, cols)?;
    let (x, x_scale) = (x.q.host()?, x.scale.host()?);
    let tasks = y.host_mut()?.par_chunks_mut(FORWARD * stride).zip(x.par_chunks(FORWARD * cols));
    cpu.for_each(tasks.zip(x_scale.par_chunks(FORWARD)), |((y, x), x_scale)| {
        let rows = rows.clone();
        isa.run(ForwardTile { x, x_scale, cols, outliers, rows, y, stride });
    });
    Ok(())
}

pub(super) fn backward(cpu: &Cpu, op: SparseBackward<'_>) -> Result<(), Error> {
    op.check()?;
    let SparseBackward { dy, weight, rows, mut dx } = op;
    let Some(outliers) = &weight.outliers else { return Ok(()) };
    if rows.is_empty() || dy.rows() == 0 {
        return Ok(());
    }
    let (cols, stride, isa) = (weight.cols(), dx.stride(), cpu.isa());
    let outliers = OutlierView::new(outliers, cols)?;
    let (all_tokens, dy_stride, dy) = (dy.rows(), dy.stride(), dy.host()?);
    let tasks = dx.host_mut()?.par_chunks_mut(BACKWARD * stride).enumerate();
    cpu.for_each(tasks, |(tile, dx)| {
        let (dy, rows) = (&dy[tile * BACKWARD * dy_stride..], rows.clone());
        let tokens = BACKWARD.min(all_tokens - tile * BACKWARD);
        isa.run(BackwardTile { dy, dy_stride, tokens, cols, outliers, rows, dx, stride });
    });
    Ok(())
}
