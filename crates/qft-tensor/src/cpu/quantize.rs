//! Quantization on the CPU.

use super::int8_rows;
use crate::numeric::{absmax, nearest_i8, scale_of};
use crate::rng::{HALF_BLOCK, blocks_per_row, rounding_offsets};
use crate::rotation::rotate;
use crate::{
    Cpu, Dequantize, Error, Kernel, Philox, QuantizeCols, QuantizeOps, QuantizeRows, RotateRows,
    Rounding, ScaleAxis,
};
use rayon::prelude::*;

/// The offsets `u - 1/2` of 128 elements, or zeros for rounding to nearest.
#[inline(always)]
fn offsets(philox: Option<&Philox>, block: usize) -> [f32; HALF_BLOCK] {
    match philox {
        None => [0.0; HALF_BLOCK],
        Some(philox) => {
            let mut offsets = rounding_offsets(&philox.block(block as u32));
            for u in &mut offsets {
                *u -= 0.5;
            }
            offsets
        }
    }
}

/// The stream of a rounding, and the row of its random bits that belongs to the operation's first row.
fn stream(rounding: Rounding) -> (Option<Philox>, usize) {
    match rounding {
        Rounding::Nearest => (None, 0),
        Rounding::Stochastic { key, first_row } => (Some(Philox::new(key)), first_row),
    }
}

/// Rows per task: enough work to outweigh handing it over.
const ROWS: usize = 8;

struct QuantizeTask<'a> {
    x: &'a [f32],
    stride: usize,
    cols: usize,
    /// Where random bits begin: the row of the tensor that is first here.
    random_row: usize,
    fold: Option<&'a [f32]>,
    philox: Option<Philox>,
    q: &'a mut [i8],
    scale: &'a mut [f32],
}

impl Kernel for QuantizeTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let rows = self.q.chunks_exact_mut(self.cols).zip(self.scale);
        for (r, (q_row, scale)) in rows.enumerate() {
            let x_row = &self.x[r * self.stride..][..self.cols];
            let inverse;
            (*scale, inverse) = scale_of(absmax(x_row, self.fold));
            let Some(philox) = &self.philox else {
                quantize_nearest(x_row, self.fold, inverse, q_row);
                continue;
            };
            let first_block = (self.random_row + r) * blocks_per_row(self.cols);
            for (block, q) in q_row.chunks_mut(HALF_BLOCK).enumerate() {
                let range = block * HALF_BLOCK..block * HALF_BLOCK + q.len();
                let u = offsets(Some(philox), first_block + block);
                let fold = self.fold.map(|f| &f[range.clone()]);
                quantize_offset(&x_row[range], fold, inverse, &u, q);
            }
        }
    }
}

#[inline(always)]
fn quantize_nearest(x: &[f32], fold: Option<&[f32]>, inverse: f32, q: &mut [i8]) {
    match fold {
        None => {
            for (q, &x) in q.iter_mut().zip(x) {
                *q = nearest_i8(x * inverse);
            }
        }
        Some(fold) => {
            for ((q, &x), &f) in q.iter_mut().zip(x).zip(fold) {
                *q = nearest_i8(x * f * inverse);
            }
        }
    }
}

#[inline(always)]
fn quantize_offset(x: &[f32], fold: Option<&[f32]>, inverse: f32, u: &[f32], q: &mut [i8]) {
    match fold {
        None => {
            for ((q, &x), &u) in q.iter_mut().zip(x).zip(u) {
                *q = nearest_i8(x * inverse + u);
            }
        }
        Some(fold) => {
            for (((q, &x), &f), &u) in q.iter_mut().zip(x).zip(fold).zip(u) {
                *q = nearest_i8(x * f * inverse + u);
            }
        }
    }
}

struct ColumnMax<'a> {
    x: &'a [f32],
    stride: usize,
    cols: usize,
    rows: usize,
    fold: Option<&'a [f32]>,
    max: &'a mut [f32],
}

impl Kernel for ColumnMax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for r in 0..self.rows {
            let row = &self.x[r * self.stride..][..self.cols];
            let fold = self.fold.map_or(1.0, |f| f[r]);
            for (max, &x) in self.max.iter_mut().zip(row) {
                // A comparison, as in `absmax`: a NaN raises nothing.
                let magnitude = (x * fold).abs();
                *max = if magnitude > *max { magnitude } else { *max };
            }
        }
    }
}

struct ColsTask<'a> {
    x: &'a [f32],
    stride: usize,
    cols: usize,
    /// As in [`QuantizeTask`].
    random_row: usize,
    fold: Option<&'a [f32]>,
    inverse: &'a [f32],
    philox: Option<Philox>,
    q: &'a mut [i8],
}

impl Kernel for ColsTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (r, q_row) in self.q.chunks_exact_mut(self.cols).enumerate() {
            let x_row = &self.x[r * self.stride..][..self.cols];
            let fold = self.fold.map_or(1.0, |f| f[r]);
            let first_block = (self.random_row + r) * blocks_per_row(self.cols);
            for (b, ((x, inverse), q)) in x_row
                .chunks(HALF_BLOCK)
                .zip(self.inverse.chunks(HALF_BLOCK))
                .zip(q_row.chunks_mut(HALF_BLOCK))
                .enumerate()
            {
                let u = offsets(self.philox.as_ref(), first_block + b);
                for (((q, &x), &inverse), &u) in q.iter_mut().zip(x).zip(inverse).zip(&u) {
                    *q = nearest_i8(x * fold * inverse + u);
                }
            }
        }
    }
}

struct RotateTask<'a> {
    rows: &'a mut [f32],
    stride: usize,
    cols: usize,
}

impl Kernel for RotateTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.rows.chunks_mut(self.stride) {
            rotate(&mut row[..self.cols]);
        }
    }
}

/// Integers and their scales, for whole rows.
#[derive(Clone, Copy)]
struct Scaled<'a> {
    q: &'a [i8],
    scale: &'a [f32],
    axis: ScaleAxis,
    cols: usize,
}

/// The scales of elements `c0..c0 + out.len()` of row `r`.
#[inline(always)]
fn spread(axis: ScaleAxis, scale: &[f32], r: usize, c0: usize, out: &mut [f32]) {
    match axis {
        ScaleAxis::Row => out.fill(scale[r]),
        ScaleAxis::Column => out.copy_from_slice(&scale[c0..][..out.len()]),
    }
}

struct DequantizeTask<'a> {
    x: Scaled<'a>,
    first_row: usize,
    stride: usize,
    out: &'a mut [f32],
}

impl Kernel for DequantizeTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Scaled { q, scale, axis, cols } = self.x;
        for (r, row) in self.out.chunks_mut(self.stride).enumerate() {
            let r = self.first_row + r;
            let q = &q[r * cols..][..cols];
            for (b, (out, q)) in
                row[..cols].chunks_mut(HALF_BLOCK).zip(q.chunks(HALF_BLOCK)).enumerate()
            {
                let mut scales = [0.0; HALF_BLOCK];
                spread(axis, scale, r, b * HALF_BLOCK, &mut scales[..q.len()]);
                for ((out, &q), scale) in out.iter_mut().zip(q).zip(scales) {
                    *out = f32::from(q) * scale;
                }
            }
        }
    }
}

impl QuantizeOps for Cpu {
    fn quantize_rows(&self, op: QuantizeRows<'_>) -> Result<(), Error> {
        op.check()?;
        let QuantizeRows { x, fold, rounding, out } = op;
        let (cols, stride, isa) = (x.cols(), x.stride(), self.isa());
        if x.rows() == 0 || cols == 0 {
            out.scale.host_mut()?.fill(0.0);
            return Ok(());
        }
        let (data, fold) = (x.host()?, fold.map(|f| f.host()).transpose()?);
        let (philox, random_row) = stream(rounding);
        if out.is_rotated() {
            return int8_rows::quantize(self, data, stride, out);
        }
        let tasks = (out.q.host_mut()?.par_chunks_mut(ROWS * cols))
            .zip(out.scale.host_mut()?.par_chunks_mut(ROWS));
        self.for_each(tasks.enumerate(), |(task, (q, scale))| {
            let first_row = task * ROWS;
            let x = &data[first_row * stride..];
            let random_row = random_row + first_row;
            isa.run(QuantizeTask { x, stride, cols, random_row, fold, philox, q, scale });
        });
        Ok(())
    }

    fn quantize_cols(&self, op: QuantizeCols<'_>) -> Result<(), Error> {
        op.check()?;
        let QuantizeCols { x, fold, rounding, out } = op;
        let (rows, cols, stride, isa) = (x.rows(), x.cols(), x.stride(), self.isa());
        let scale = out.scale.host_mut()?;
        scale.fill(0.0);
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let (data, fold) = (x.host()?, fold.map(|f| f.host()).transpose()?);
        // One strip of columns per task: maxima need no reduction between threads.
        const STRIP: usize = 256;
        self.for_each(scale.par_chunks_mut(STRIP).enumerate(), |(strip, max)| {
            let (x, cols) = (&data[strip * STRIP..], max.len());
            isa.run(ColumnMax { x, stride, cols, rows, fold, max });
        });
        let mut inverse = vec![0.0; cols];
        for (scale, inverse) in scale.iter_mut().zip(&mut inverse) {
            (*scale, *inverse) = scale_of(*scale);
        }
        let (philox, random_row) = stream(rounding);
        let (inverse, tasks) = (&inverse, out.q.host_mut()?.par_chunks_mut(ROWS * cols));
        self.for_each(tasks.enumerate(), |(task, q)| {
            let first_row = task * ROWS;
            let x = &data[first_row * stride..];
            let fold = fold.map(|f| &f[first_row..]);
            let random_row = random_row + first_row;
            isa.run(ColsTask { x, stride, cols, random_row, fold, inverse, philox, q });
        });
        Ok(())
    }

    fn rotate_rows(&self, op: RotateRows<'_>) -> Result<(), Error> {
        let RotateRows { mut x } = op;
        let (cols, stride, isa) = (x.cols(), x.stride(), self.isa());
        if x.rows() == 0 || cols == 0 {
            return Ok(());
        }
        let tasks = x.host_mut()?.par_chunks_mut(ROWS * stride);
        self.for_each(tasks, |rows| isa.run(RotateTask { rows, stride, cols }));
        Ok(())
    }

    fn dequantize(&self, op: Dequantize<'_>) -> Result<(), Error> {
        op.check()?;
        let Dequantize { x, mut out } = op;
        let (cols, stride, isa) = (out.cols(), out.stride(), self.isa());
        if out.rows() == 0 || cols == 0 {
            return Ok(());
        }
        let x = Scaled { q: x.q.host()?, scale: x.scale.host()?, axis: x.axis(), cols };
        let tasks = out.host_mut()?.par_chunks_mut(ROWS * stride);
        self.for_each(tasks.enumerate(), |(task, out)| {
            isa.run(DequantizeTask { x, first_row: task * ROWS, stride, out });
        });
        Ok(())
    }
}
