//! Quantization on the CPU.

use crate::rng::{HALF_BLOCK, blocks_per_row, rounding_offsets};
use crate::{
    Cpu, Dequantize, Error, Kernel, Philox, QuantizeCols, QuantizeOps, QuantizeRows, Requantize,
    Rounding, ScaleAxis,
};
use rayon::prelude::*;

/// Below this absmax a group counts as zero: its inverse scale would overflow.
const TINY: f32 = 1e-30;

/// `2^23 + 2^22`: adding it to a float of magnitude below 2^22 leaves the nearest integer, ties to even, in
/// the low bits of the sum.
const MAGIC: f32 = 12_582_912.0;

/// The nearest INT8, ties to even; NaN gives 0.
#[inline(always)]
pub fn nearest_i8(x: f32) -> i8 {
    let x = if x.is_nan() { 0.0 } else { x.clamp(-127.0, 127.0) };
    (x + MAGIC).to_bits() as i8
}

/// Maps a group's absmax to `(scale, inverse scale)`.
#[inline(always)]
pub fn scale_of(absmax: f32) -> (f32, f32) {
    if absmax > TINY { (absmax / 127.0, 127.0 / absmax) } else { (0.0, 0.0) }
}

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

fn philox(rounding: Rounding) -> Option<Philox> {
    match rounding {
        Rounding::Nearest => None,
        Rounding::Stochastic(key) => Some(Philox::new(key)),
    }
}

/// Largest magnitude of `x * fold`, or of `x`; order-free, so lanes may be combined at will.
#[inline(always)]
fn absmax(x: &[f32], fold: Option<&[f32]>) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    match fold {
        None => {
            let (head, tail) = x.as_chunks::<LANES>();
            for chunk in head {
                for (lane, &v) in lanes.iter_mut().zip(chunk) {
                    *lane = lane.max(v.abs());
                }
            }
            for (lane, &v) in lanes.iter_mut().zip(tail) {
                *lane = lane.max(v.abs());
            }
        }
        Some(fold) => {
            let (head, tail) = x.as_chunks::<LANES>();
            let (fold_head, fold_tail) = fold.as_chunks::<LANES>();
            for (chunk, folds) in head.iter().zip(fold_head) {
                for i in 0..LANES {
                    lanes[i] = lanes[i].max((chunk[i] * folds[i]).abs());
                }
            }
            for (i, (&v, &f)) in tail.iter().zip(fold_tail).enumerate() {
                lanes[i] = lanes[i].max((v * f).abs());
            }
        }
    }
    lanes.iter().fold(0.0, |a, &b| a.max(b))
}

/// Rows per task: enough work to outweigh handing it over.
const ROWS: usize = 8;

struct RowsTask<'a> {
    x: &'a [f32],
    stride: usize,
    cols: usize,
    first_row: usize,
    group: usize,
    fold: Option<&'a [f32]>,
    philox: Option<Philox>,
    q: &'a mut [i8],
    scale: &'a mut [f32],
}

impl Kernel for RowsTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let groups = self.cols.div_ceil(self.group);
        for (r, (q_row, scale_row)) in
            self.q.chunks_exact_mut(self.cols).zip(self.scale.chunks_exact_mut(groups)).enumerate()
        {
            let x_row = &self.x[r * self.stride..][..self.cols];
            let first_block = (self.first_row + r) * blocks_per_row(self.cols);
            let mut inverses = [0.0; 1];
            for (g, scale) in scale_row.iter_mut().enumerate() {
                let range = g * self.group..((g + 1) * self.group).min(self.cols);
                let (s, inverse) =
                    scale_of(absmax(&x_row[range.clone()], self.fold.map(|f| &f[range.clone()])));
                *scale = s;
                inverses[0] = inverse;
                if groups > 1 {
                    // Groups need not align with random blocks: index each element by itself.
                    for c in range {
                        let block = offsets(self.philox.as_ref(), first_block + c / HALF_BLOCK);
                        let folded = x_row[c] * self.fold.map_or(1.0, |f| f[c]);
                        q_row[c] = nearest_i8(folded * inverse + block[c % HALF_BLOCK]);
                    }
                }
            }
            if groups > 1 {
                continue;
            }
            for (b, (x, q)) in
                x_row.chunks(HALF_BLOCK).zip(q_row.chunks_mut(HALF_BLOCK)).enumerate()
            {
                let fold = self.fold.map(|f| &f[b * HALF_BLOCK..][..x.len()]);
                match &self.philox {
                    None => quantize_nearest(x, fold, inverses[0], q),
                    Some(_) => {
                        let u = offsets(self.philox.as_ref(), first_block + b);
                        quantize_offset(x, fold, inverses[0], &u, q);
                    }
                }
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
                *max = max.max((x * fold).abs());
            }
        }
    }
}

struct ColsTask<'a> {
    x: &'a [f32],
    stride: usize,
    cols: usize,
    first_row: usize,
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
            let first_block = (self.first_row + r) * blocks_per_row(self.cols);
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
        let group = match out.axis() {
            ScaleAxis::Group(group) => group,
            _ => cols,
        };
        let philox = philox(rounding);
        let tasks = (out.q.host_mut()?.par_chunks_mut(ROWS * cols))
            .zip(out.scale.host_mut()?.par_chunks_mut(ROWS * cols.div_ceil(group)));
        self.for_each(tasks.enumerate(), |(task, (q, scale))| {
            let first_row = task * ROWS;
            let x = &data[first_row * stride..];
            isa.run(RowsTask { x, stride, cols, first_row, group, fold, philox, q, scale });
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
        let philox = philox(rounding);
        let (inverse, tasks) = (&inverse, out.q.host_mut()?.par_chunks_mut(ROWS * cols));
        self.for_each(tasks.enumerate(), |(task, q)| {
            let first_row = task * ROWS;
            let x = &data[first_row * stride..];
            let fold = fold.map(|f| &f[first_row..]);
            isa.run(ColsTask { x, stride, cols, first_row, fold, inverse, philox, q });
        });
        Ok(())
    }

    fn dequantize(&self, op: Dequantize<'_>) -> Result<(), Error> {
        op.check()?;
        let Dequantize { x, mut out } = op;
        let (cols, stride) = (out.cols(), out.stride());
        if out.rows() == 0 || cols == 0 {
            return Ok(());
        }
        let (q, scale, axis) = (x.q.host()?, x.scale.host()?, x.axis());
        let tasks = out.host_mut()?.par_chunks_mut(stride);
        self.for_each(tasks.enumerate(), |(r, row)| {
            let q = &q[r * cols..][..cols];
            for (c, (out, &q)) in row.iter_mut().zip(q).enumerate() {
                *out = f32::from(q) * scale[scale_index(axis, cols, r, c)];
            }
        });
        Ok(())
    }

    fn requantize(&self, op: Requantize<'_>) -> Result<(), Error> {
        op.check()?;
        let Requantize { x, rounding, out } = op;
        let (cols, philox) = (x.cols(), philox(rounding));
        if x.rows() == 0 || cols == 0 {
            return Ok(());
        }
        let (q, scale, axis) = (x.q.host()?, x.scale.host()?, x.axis());
        let out_axis = out.axis();
        let out_scale = out.scale.host()?;
        let tasks = out.q.host_mut()?.par_chunks_mut(cols);
        self.for_each(tasks.enumerate(), |(r, row)| {
            for (b, chunk) in row.chunks_mut(HALF_BLOCK).enumerate() {
                let u = offsets(philox.as_ref(), r * blocks_per_row(cols) + b);
                for (i, out) in chunk.iter_mut().enumerate() {
                    let c = b * HALF_BLOCK + i;
                    let value = f32::from(q[r * cols + c]) * scale[scale_index(axis, cols, r, c)];
                    let new = out_scale[scale_index(out_axis, cols, r, c)];
                    *out = if new > TINY { nearest_i8(value / new + u[i]) } else { 0 };
                }
            }
        });
        Ok(())
    }
}

fn scale_index(axis: ScaleAxis, cols: usize, r: usize, c: usize) -> usize {
    match axis {
        ScaleAxis::Row => r,
        ScaleAxis::Column => c,
        ScaleAxis::Group(group) => r * cols.div_ceil(group) + c / group,
    }
}
