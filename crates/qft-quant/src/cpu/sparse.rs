//! Products with the protected features.
//!
//! Tokens lie along vector lanes: a tile of tokens is transposed, so that one feature meets many tokens at one
//! address. Forward keeps the sums of a row in registers; backward keeps those of 256 columns in the cache.

use super::transpose::{Aligned, SIDE, TILE_ROWS, bytes, square};
use crate::outlier::{BLOCK_COLS, OutlierView, RowView};
use crate::{Error, SparseBackward, SparseForward};
use half::bf16;
use qft_tensor::cpu::wide::used;
use qft_tensor::wide::{WIDE, WIDE_RADIX};
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens in a tile of the forward product.
const FORWARD: usize = TILE_ROWS;

/// Tokens in a tile of the backward product, whose columns are floats.
const BACKWARD: usize = 64;

struct ForwardTile<'a> {
    /// Scratch `[K]`.
    tile: &'a mut [Aligned<[i8; FORWARD]>],
    x: &'a [i8],
    x_scale: &'a [f32],
    /// Second digits, if any channel is wide.
    wide: Option<WideTile<'a>>,
    outliers: OutlierView<'a>,
    rows: Range<usize>,
    y: &'a mut [f32],
    stride: usize,
}

/// The second digits of a tile of tokens.
#[derive(Clone, Copy)]
struct WideTile<'a> {
    /// `[K]`: the place of each channel; [`WIDE`] for those that are not wide.
    places: &'a [u8],
    /// i8 `[tokens, WIDE]`.
    high: &'a [i8],
}

impl WideTile<'_> {
    /// What the second digits of each place are worth `[WIDE][tokens]`, and nothing for a channel that is not wide.
    #[inline(always)]
    fn values(&self) -> [[f32; FORWARD]; WIDE + 1] {
        let mut values = [[0.0; FORWARD]; WIDE + 1];
        for (t, high) in self.high.as_chunks::<WIDE>().0.iter().enumerate() {
            for (values, &high) in values.iter_mut().zip(high) {
                values[t] = (WIDE_RADIX * i32::from(high)) as f32;
            }
        }
        values
    }
}

impl Kernel for ForwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        bytes(self.x, self.tile);
        let wide = self.wide.map(|wide| (wide.places, wide.values()));
        let mut sums = [Aligned([0.0f32; FORWARD]); SIDE];
        for first in self.rows.clone().step_by(SIDE) {
            let count = SIDE.min(self.rows.end - first);
            for (n, sums) in (first..first + count).zip(&mut sums) {
                sums.0 = match &wide {
                    None => dot(&self.outliers.row(n), self.tile),
                    Some((places, values)) => {
                        dot_wide(&self.outliers.row(n), self.tile, places, values)
                    }
                };
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

/// The products of one row's features with all tokens of a tile.
#[inline(always)]
fn dot(row: &RowView<'_>, tile: &[Aligned<[i8; FORWARD]>]) -> [f32; FORWARD] {
    let mut sums = [0.0f32; FORWARD];
    row.for_each(|col, value| {
        let value = to_f32(value);
        for (sum, &x) in sums.iter_mut().zip(&tile[col].0) {
            *sum = f32::from(x).mul_add(value, *sum);
        }
    });
    sums
}

/// [`dot`] where some channels have second digits; a sum of both digits is exact.
#[inline(always)]
fn dot_wide(
    row: &RowView<'_>,
    tile: &[Aligned<[i8; FORWARD]>],
    places: &[u8],
    values: &[[f32; FORWARD]; WIDE + 1],
) -> [f32; FORWARD] {
    let mut sums = [0.0f32; FORWARD];
    row.for_each(|col, value| {
        let value = to_f32(value);
        let high = &values[usize::from(places[col])];
        for ((sum, &x), &high) in sums.iter_mut().zip(&tile[col].0).zip(high) {
            *sum = (f32::from(x) + high).mul_add(value, *sum);
        }
    });
    sums
}

/// `[t][i]` of the 16 tokens from `first` on, from up to 16 rows `[i][t]`.
#[inline(always)]
fn turned<const TOKENS: usize>(
    rows: &[Aligned<[f32; TOKENS]>],
    first: usize,
) -> [f32; SIDE * SIDE] {
    let mut block = [0.0; SIDE * SIDE];
    for (block, row) in block.as_chunks_mut::<SIDE>().0.iter_mut().zip(rows) {
        block.copy_from_slice(&row.0[first..first + SIDE]);
    }
    square(&block)
}

/// A feature, as the backward product reads it.
#[derive(Debug, Clone, Copy)]
struct Feature {
    /// The row, counted from the first one, times [`BLOCK_COLS`], plus the column within its block.
    place: u32,
    value: f32,
}

/// The features of each block of columns, rows rising; 8 bytes each.
///
/// Made once for all tiles. Found row by row, two or three at a time, they would end a loop at each row, and
/// mispredicting that end costs more than their arithmetic.
struct Features {
    all: Vec<Feature>,
    /// Where each block begins, and the end of the last.
    starts: Vec<usize>,
}

impl Features {
    fn new(outliers: &OutlierView<'_>, rows: Range<usize>, cols: usize) -> Self {
        let mut starts = vec![0; cols.div_ceil(BLOCK_COLS) + 1];
        for n in rows.clone() {
            outliers.row(n).for_each(|col, _| starts[col / BLOCK_COLS + 1] += 1);
        }
        for block in 1..starts.len() {
            starts[block] += starts[block - 1];
        }
        let mut next = starts.clone();
        let mut all = vec![Feature { place: 0, value: 0.0 }; starts[starts.len() - 1]];
        for (i, n) in rows.enumerate() {
            outliers.row(n).for_each(|col, value| {
                let next = &mut next[col / BLOCK_COLS];
                let place = (i * BLOCK_COLS + col % BLOCK_COLS) as u32;
                all[*next] = Feature { place, value: to_f32(value) };
                *next += 1;
            });
        }
        Self { all, starts }
    }

    #[inline(always)]
    fn block(&self, block: usize) -> &[Feature] {
        &self.all[self.starts[block]..self.starts[block + 1]]
    }
}

/// What a worker of the backward product keeps between tiles.
struct BackwardScratch {
    /// Transposed gradient, `[rows.len()]` columns.
    dy: Vec<Aligned<[f32; BACKWARD]>>,
    /// Transposed sums of one block of columns: they stay in the first-level cache.
    sums: Vec<Aligned<[f32; BACKWARD]>>,
}

struct BackwardTile<'a> {
    scratch: &'a mut BackwardScratch,
    dy: &'a [f32],
    dy_stride: usize,
    tokens: usize,
    features: &'a Features,
    dx: &'a mut [f32],
    stride: usize,
    cols: usize,
}

impl Kernel for BackwardTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        self.load();
        for block in 0..self.cols.div_ceil(BLOCK_COLS) {
            self.add_block(block);
            self.store(block);
        }
    }
}

impl BackwardTile<'_> {
    /// Transposes the gradient.
    #[inline(always)]
    fn load(&mut self) {
        for (c, columns) in self.scratch.dy.chunks_mut(SIDE).enumerate() {
            for group in (0..self.tokens).step_by(SIDE) {
                let mut block = [0.0; SIDE * SIDE];
                for (t, block) in (group..self.tokens).zip(block.as_chunks_mut::<SIDE>().0) {
                    let from = &self.dy[t * self.dy_stride + c * SIDE..][..columns.len()];
                    match from.first_chunk::<SIDE>() {
                        Some(from) => *block = *from,
                        None => block[..from.len()].copy_from_slice(from),
                    }
                }
                for (to, column) in columns.iter_mut().zip(square(&block).as_chunks::<SIDE>().0) {
                    to.0[group..group + SIDE].copy_from_slice(column);
                }
            }
        }
    }

    /// Sums over the features of one block of columns, in row order.
    #[inline(always)]
    fn add_block(&mut self, block: usize) {
        let BackwardScratch { dy, sums } = &mut *self.scratch;
        sums.fill(Aligned([0.0; BACKWARD]));
        for &Feature { place, value } in self.features.block(block) {
            let (row, col) = (place as usize / BLOCK_COLS, place as usize % BLOCK_COLS);
            // Through a copy, which cannot alias: the loop stays in vector registers.
            let mut sum = sums[col];
            for (sum, &dy) in sum.0.iter_mut().zip(&dy[row].0) {
                *sum = dy.mul_add(value, *sum);
            }
            sums[col] = sum;
        }
    }

    /// Adds the sums of a block of columns to `dx`.
    #[inline(always)]
    fn store(&mut self, block: usize) {
        let width = BLOCK_COLS.min(self.cols - block * BLOCK_COLS);
        for (c, sums) in self.scratch.sums[..width].chunks(SIDE).enumerate() {
            for group in (0..self.tokens).step_by(SIDE) {
                let turned = turned(sums, group);
                for (t, turned) in (group..self.tokens).zip(turned.as_chunks::<SIDE>().0) {
                    let column = block * BLOCK_COLS + c * SIDE;
                    let dx = &mut self.dx[t * self.stride + column..][..sums.len()];
                    for (dx, &sum) in dx.iter_mut().zip(turned) {
                        *dx += sum;
                    }
                }
            }
        }
    }
}

/// Exact; the library's conversion tests for NaN, which a weight is not.
#[inline(always)]
fn to_f32(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
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
    let wide = match &x.wide {
        Some(wide) => Some((used(wide.channels.host()?, cols), wide.high.host()?)),
        None => None,
    };
    let wide = wide.filter(|(channels, _)| !channels.is_empty()).map(|(channels, high)| {
        let mut places = vec![WIDE as u8; cols];
        for (place, &channel) in channels.iter().enumerate() {
            places[channel as usize] = place as u8;
        }
        (places, high)
    });
    let (x, x_scale) = (x.q.host()?, x.scale.host()?);
    let tasks = y.host_mut()?.par_chunks_mut(FORWARD * stride).zip(x.par_chunks(FORWARD * cols));
    let tasks = tasks.zip(x_scale.par_chunks(FORWARD)).enumerate();
    cpu.install(|| {
        // Scratch is kept between the tiles of a worker: fresh pages would cost more than the product.
        tasks.for_each_init(
            || vec![Aligned([0; FORWARD]); cols],
            |tile, (index, ((y, x), x_scale))| {
                let rows = rows.clone();
                let wide = wide.as_ref().map(|(places, high)| WideTile {
                    places,
                    high: &high[index * FORWARD * WIDE..][..x_scale.len() * WIDE],
                });
                isa.run(ForwardTile { tile, x, x_scale, wide, outliers, rows, y, stride });
            },
        );
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
    let features = Features::new(&OutlierView::new(outliers, cols)?, rows.clone(), cols);
    let (all_tokens, dy_stride, dy) = (dy.rows(), dy.stride(), dy.host()?);
    let tasks = dx.host_mut()?.par_chunks_mut(BACKWARD * stride).enumerate();
    cpu.install(|| {
        tasks.for_each_init(
            || BackwardScratch {
                dy: vec![Aligned([0.0; BACKWARD]); rows.len()],
                sums: vec![Aligned([0.0; BACKWARD]); BLOCK_COLS],
            },
            |scratch, (tile, dx)| {
                let dy = &dy[tile * BACKWARD * dy_stride..];
                let tokens = BACKWARD.min(all_tokens - tile * BACKWARD);
                isa.run(BackwardTile {
                    scratch,
                    dy,
                    dy_stride,
                    tokens,
                    features: &features,
                    dx,
                    stride,
                    cols,
                });
            },
        );
    });
    Ok(())
}
