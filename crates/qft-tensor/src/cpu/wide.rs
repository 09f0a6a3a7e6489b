//! Quantization with wide channels on the CPU.
//!
//! Rows are first quantized as if no channel were wide, while the maxima of their columns are taken. Only if some
//! columns stand out are the rows computed once more: a matrix without wide channels costs the maxima alone.

use crate::quantize::{nearest_i8, scale_of};
use crate::wide::{NO_CHANNEL, WIDE, digits, row_absmax, select};
use crate::{Cpu, Error, Kernel, QMatrix};
use rayon::prelude::*;

/// Rows whose column maxima are taken together, and quantized together in the second pass.
pub const ROWS: usize = 32;

/// Rows that can be computed a second time, to the same bits.
pub trait RowValues: Sync {
    /// Writes row `row`.
    fn write(&self, row: usize, out: &mut [f32]);
}

/// Raises each column's maximum to the magnitude in `row`; a NaN raises nothing.
#[inline(always)]
pub fn raise_maxima(maxima: &mut [f32], row: &[f32]) {
    for (max, x) in maxima.iter_mut().zip(row) {
        let magnitude = x.abs();
        *max = if magnitude > *max { magnitude } else { *max };
    }
}

/// The largest magnitude of each column of a matrix, for each [`ROWS`] rows by themselves; nothing for a matrix
/// without places for wide channels.
#[derive(Debug, Default)]
pub struct Maxima {
    /// f32 `[blocks, cols]`.
    values: Vec<f32>,
    blocks: usize,
    cols: usize,
}

impl Maxima {
    /// Zeros, for the columns of `out`.
    pub fn new(out: &QMatrix) -> Self {
        let blocks = out.rows().div_ceil(ROWS);
        let cols = if out.wide.is_some() { out.cols() } else { 0 };
        Self { values: vec![0.0; blocks * cols], blocks, cols }
    }

    /// Those of each [`ROWS`] rows, for tasks to raise: `[cols]`, or empty.
    pub fn parts(&mut self) -> Vec<&mut [f32]> {
        match self.cols {
            0 => (0..self.blocks).map(|_| Default::default()).collect(),
            cols => self.values.chunks_exact_mut(cols).collect(),
        }
    }

    /// Chooses the wide channels of `out`, a matrix that has been quantized without them and has at least one
    /// element. If there are any, its rows are quantized again.
    pub fn widen(
        mut self,
        cpu: &Cpu,
        out: &mut QMatrix,
        rows: &impl RowValues,
    ) -> Result<(), Error> {
        let cols = self.cols;
        let Some(wide) = &mut out.wide else { return Ok(()) };
        let (all, others) = self.values.split_at_mut(cols);
        for maxima in others.chunks_exact(cols) {
            raise_maxima(all, maxima);
        }
        let places = select(all);
        let channels = used(&places, cols);
        wide.channels.host_mut()?.copy_from_slice(&places);
        let high = wide.high.host_mut()?;
        high.fill(0);
        if channels.is_empty() {
            return Ok(());
        }
        let isa = cpu.isa();
        let tasks = (out.q.host_mut()?.par_chunks_mut(ROWS * cols))
            .zip(out.scale.host_mut()?.par_chunks_mut(ROWS))
            .zip(high.par_chunks_mut(ROWS * WIDE));
        cpu.install(|| {
            tasks.enumerate().for_each_init(
                || vec![0.0; cols],
                |row, (task, ((q, scale), high))| {
                    isa.run(Task { rows, first: task * ROWS, row, channels, q, scale, high });
                },
            );
        });
        Ok(())
    }
}

/// Leaves all places for wide channels unused.
pub fn none(out: &mut QMatrix) -> Result<(), Error> {
    if let Some(wide) = &mut out.wide {
        wide.channels.host_mut()?.fill(NO_CHANNEL);
        wide.high.host_mut()?.fill(0);
    }
    Ok(())
}

/// The places that are used: those in front whose channel exists.
pub fn used(places: &[u32], cols: usize) -> &[u32] {
    let count = places.iter().take_while(|&&channel| (channel as usize) < cols).count();
    &places[..count]
}

struct Task<'a, R> {
    rows: &'a R,
    first: usize,
    row: &'a mut [f32],
    channels: &'a [u32],
    q: &'a mut [i8],
    scale: &'a mut [f32],
    high: &'a mut [i8],
}

impl<R: RowValues> Kernel for Task<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, first, row, channels, q, scale, high } = self;
        let outputs = q.chunks_exact_mut(row.len()).zip(scale).zip(high.as_chunks_mut::<WIDE>().0);
        for (r, ((q, scale), high)) in outputs.enumerate() {
            rows.write(first + r, row);
            let (mut values, mut largest) = ([0.0f32; WIDE], 0.0f32);
            for (value, &channel) in values.iter_mut().zip(channels) {
                *value = std::mem::take(&mut row[channel as usize]);
                largest = largest.max(value.abs());
            }
            let ordinary = super::quantize::absmax(row, None);
            let inverse;
            (*scale, inverse) = scale_of(row_absmax(ordinary, largest));
            for (q, &x) in q.iter_mut().zip(&*row) {
                *q = nearest_i8(x * inverse);
            }
            for ((value, &channel), high) in values.iter().zip(channels).zip(high) {
                (q[channel as usize], *high) = digits(value * inverse);
            }
        }
    }
}
