//! Rows that an operation has just computed, quantized while they are still in the cache.

use crate::numeric::{absmax, nearest_i8, scale_of};
use crate::rotation::rotate;
use crate::{Cpu, Error, Kernel, QMatrix};
use rayon::prelude::*;

/// Rows per task.
pub const ROWS: usize = 32;

/// The bytes of a result with one scale per row, cut into [`ROWS`] rows: for operations that quantize what they
/// have just computed.
#[derive(Debug)]
pub struct Int8Rows<'a> {
    /// i8 `[rows, cols]`.
    q: &'a mut [i8],
    /// f32 `[rows]`.
    scale: &'a mut [f32],
    rotated: bool,
}

impl<'a> Int8Rows<'a> {
    /// Cuts `out`, which has at least one element.
    pub fn split(out: &'a mut QMatrix) -> Result<Vec<Self>, Error> {
        let (cols, rotated) = (out.cols(), out.is_rotated());
        let q = out.q.host_mut()?.chunks_mut(ROWS * cols);
        let parts = q.zip(out.scale.host_mut()?.chunks_mut(ROWS));
        Ok(parts.map(|(q, scale)| Self { q, scale, rotated }).collect())
    }

    /// Quantizes `values` into row `row`; they are lost.
    #[inline(always)]
    pub fn quantize(&mut self, row: usize, values: &mut [f32]) {
        if self.rotated {
            rotate(values);
        }
        let (scale, inverse) = scale_of(absmax(values, None));
        self.scale[row] = scale;
        let q = &mut self.q[row * values.len()..][..values.len()];
        for (q, &x) in q.iter_mut().zip(&*values) {
            *q = nearest_i8(x * inverse);
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

/// Rotates rows of `data` and quantizes them into `out`.
pub(super) fn quantize(
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
