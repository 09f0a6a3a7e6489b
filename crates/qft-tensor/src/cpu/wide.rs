//! Quantization with wide channels on the CPU, and the maxima that choose them.

use crate::numeric::{absmax, nearest_i8, scale_of};
use crate::wide::{WIDE, WIDE_RADIX, digits, row_absmax};
use crate::{Cpu, Error, Kernel, QMatrix, RaiseMaxima};
use rayon::prelude::*;

/// Rows per task.
pub const ROWS: usize = 32;

/// The places that are used: those in front whose channel exists.
pub fn used(places: &[u32], cols: usize) -> &[u32] {
    let count = places.iter().take_while(|&&channel| (channel as usize) < cols).count();
    &places[..count]
}

/// Whether a matrix has wide channels.
pub(super) fn any(x: &QMatrix) -> Result<bool, Error> {
    let Some(wide) = &x.wide else { return Ok(false) };
    Ok(!used(wide.channels.host()?, x.cols()).is_empty())
}

/// Zeros for the second digits.
pub(super) fn zero(out: &mut QMatrix) -> Result<(), Error> {
    if let Some(wide) = &mut out.wide {
        wide.high.host_mut()?.fill(0);
    }
    Ok(())
}

/// The bytes of a result with one scale per row, cut into [`ROWS`] rows: for operations that quantize what they
/// have just computed.
#[derive(Debug)]
pub struct Int8Rows<'a> {
    /// i8 `[rows, cols]`.
    q: &'a mut [i8],
    /// f32 `[rows]`.
    scale: &'a mut [f32],
    /// i8 `[rows, WIDE]`, or empty for a result without places for wide channels.
    high: &'a mut [i8],
    /// Those that are used.
    channels: &'a [u32],
}

impl<'a> Int8Rows<'a> {
    /// Cuts `out`, which has at least one element.
    pub fn split(out: &'a mut QMatrix) -> Result<Vec<Self>, Error> {
        let cols = out.cols();
        let q = out.q.host_mut()?.chunks_mut(ROWS * cols);
        let scales = q.zip(out.scale.host_mut()?.chunks_mut(ROWS));
        let Some(wide) = &mut out.wide else {
            let part = |(q, scale)| Self { q, scale, high: Default::default(), channels: &[] };
            return Ok(scales.map(part).collect());
        };
        let channels = used(wide.channels.host()?, cols);
        let parts = scales.zip(wide.high.host_mut()?.chunks_mut(ROWS * WIDE));
        Ok(parts.map(|((q, scale), high)| Self { q, scale, high, channels }).collect())
    }

    /// Quantizes `values` into row `row`; they are lost.
    #[inline(always)]
    pub fn quantize(&mut self, row: usize, values: &mut [f32]) {
        let q = &mut self.q[row * values.len()..][..values.len()];
        let (mut wide, mut largest) = ([0.0f32; WIDE], 0.0f32);
        for (value, &channel) in wide.iter_mut().zip(self.channels) {
            *value = std::mem::take(&mut values[channel as usize]);
            largest = largest.max(value.abs());
        }
        let (scale, inverse) = scale_of(row_absmax(absmax(values, None), largest));
        self.scale[row] = scale;
        for (q, &x) in q.iter_mut().zip(&*values) {
            *q = nearest_i8(x * inverse);
        }
        let Some(high) = self.high.get_mut(row * WIDE..(row + 1) * WIDE) else { return };
        high.fill(0);
        for ((value, &channel), high) in wide.iter().zip(self.channels).zip(high) {
            (q[channel as usize], *high) = digits(value * inverse);
        }
    }
}

struct StoredRows<'a> {
    x: &'a [f32],
    stride: usize,
    row: &'a mut [f32],
    out: Int8Rows<'a>,
}

impl Kernel for StoredRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        for r in 0..self.out.scale.len() {
            self.row.copy_from_slice(&self.x[r * self.stride..][..self.row.len()]);
            self.out.quantize(r, self.row);
        }
    }
}

/// Quantizes rows of `data` into `out`, which has wide channels.
pub(super) fn quantize_rows(
    cpu: &Cpu,
    data: &[f32],
    stride: usize,
    out: &mut QMatrix,
) -> Result<(), Error> {
    let (cols, isa) = (out.cols(), cpu.isa());
    let tasks = Int8Rows::split(out)?.into_par_iter().enumerate();
    cpu.install(|| {
        tasks.for_each_init(
            || vec![0.0; cols],
            |row, (task, out)| {
                isa.run(StoredRows { x: &data[task * ROWS * stride..], stride, row, out });
            },
        );
    });
    Ok(())
}

/// Columns of a task of [`raise_maxima`]: their maxima stay in registers and the first cache.
const STRIP: usize = 256;

struct StripMaxima<'a> {
    q: &'a [i8],
    scale: &'a [f32],
    cols: usize,
    first: usize,
    maxima: &'a mut [f32],
}

impl Kernel for StripMaxima<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { q, scale, cols, first, maxima } = self;
        for (row, &scale) in q.chunks_exact(cols).zip(scale) {
            for (max, &q) in maxima.iter_mut().zip(&row[first..]) {
                let magnitude = f32::from(q).abs() * scale;
                *max = if magnitude > *max { magnitude } else { *max };
            }
        }
    }
}

pub(super) fn raise_maxima(
    cpu: &Cpu,
    RaiseMaxima { x, maxima }: RaiseMaxima<'_>,
) -> Result<(), Error> {
    let (cols, isa) = (x.cols(), cpu.isa());
    if x.rows() == 0 || cols == 0 {
        return Ok(());
    }
    let (q, scale, maxima) = (x.q.host()?, x.scale.host()?, maxima.host_mut()?);
    // One strip of columns per task: maxima need no reduction between threads.
    cpu.for_each(maxima.par_chunks_mut(STRIP).enumerate(), |(strip, maxima)| {
        isa.run(StripMaxima { q, scale, cols, first: strip * STRIP, maxima });
    });
    // The first digit of a wide value is smaller than the whole.
    let Some(wide) = &x.wide else { return Ok(()) };
    let (channels, high) = (used(wide.channels.host()?, cols), wide.high.host()?);
    for (row, (high, &scale)) in
        q.chunks_exact(cols).zip(high.as_chunks::<WIDE>().0.iter().zip(scale))
    {
        for (&channel, &high) in channels.iter().zip(high) {
            let channel = channel as usize;
            let n = i32::from(row[channel]) + WIDE_RADIX * i32::from(high);
            maxima[channel] = maxima[channel].max(n.abs() as f32 * scale);
        }
    }
    Ok(())
}
