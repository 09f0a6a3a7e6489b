//! One row of floats to one row of the dense planes.

use crate::Residual;
use crate::fixed_point::{BLOCK, MAX_Q, split};
use half::bf16;
use qft_tensor::Kernel;
use qft_tensor::numeric::{LANES, TINY, nearest, nearest_bf16};

/// What happened to a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EncodedRow {
    /// The scale, 0 for a row of zeros.
    pub(super) scale: f32,
    /// Sum of squared errors of what is stored, read at the precision of products.
    pub(super) squared_error: f64,
    /// The same without protection.
    pub(super) squared_error_unprotected: f64,
}

/// Encodes a row; protected weights are taken out of it (set to zero) and written as bf16.
pub(super) struct EncodeRow<'a> {
    pub(super) residual: Residual,
    pub(super) w: &'a mut [f32],
    /// The range of the dense weights is at least this if some of the row's weights are protected.
    pub(super) least_range: f32,
    /// Protected columns, and where their values go.
    pub(super) protected: &'a mut [(usize, bf16)],
    pub(super) q: &'a mut [i8],
    pub(super) r: &'a mut [i8],
}

impl Kernel for EncodeRow<'_> {
    type Output = EncodedRow;

    #[inline(always)]
    fn run(self) -> EncodedRow {
        match self.residual {
            Residual::None => encode::<0>(self),
            Residual::Bits4 => encode::<4>(self),
            Residual::Bits8 => encode::<8>(self),
        }
    }
}

#[inline(always)]
fn encode<const LOG_F: u32>(row: EncodeRow<'_>) -> EncodedRow {
    let EncodeRow { w, protected, q, r, .. } = row;
    let mut taken_error = 0.0;
    let (mut unprotected, mut range) = (None, 0.0);
    if !protected.is_empty() {
        unprotected = Some(quantize::<LOG_F>(w, range, q, r).1);
        range = row.least_range;
        for (col, value) in protected {
            *value = nearest_bf16(w[*col]);
            taken_error += (f64::from(w[*col]) - value.to_f64()).powi(2);
            w[*col] = 0.0;
        }
    }
    let (scale, error) = quantize::<LOG_F>(w, range, q, r);
    EncodedRow {
        scale,
        squared_error: error + taken_error,
        squared_error_unprotected: unprotected.unwrap_or(error),
    }
}

/// Fills the planes, whose range is at least `range`; returns the scale and the squared error of the high plane.
#[inline(always)]
fn quantize<const LOG_F: u32>(w: &[f32], range: f32, q: &mut [i8], r: &mut [i8]) -> (f32, f64) {
    let absmax = absmax(w).max(range);
    if absmax < TINY {
        q.fill(0);
        r.fill(0);
        return (0.0, w.iter().map(|&w| f64::from(w).powi(2)).sum());
    }
    let scale = absmax / MAX_Q as f32;
    let steps = (1 << LOG_F) as f32;
    let mut lanes = [0.0f64; LANES];
    let residual_bytes = match LOG_F {
        0 => 0,
        4 => BLOCK / 2,
        _ => BLOCK,
    };
    let mut rest = r;
    for (w, q) in w.chunks(BLOCK).zip(q.chunks_mut(BLOCK)) {
        let (r, behind) = rest.split_at_mut(residual_bytes.min(rest.len()));
        rest = behind;
        let mut block = [0.0; BLOCK];
        match w.first_chunk::<BLOCK>() {
            Some(w) => block = *w,
            None => block[..w.len()].copy_from_slice(w),
        }
        let mut k = [0; BLOCK];
        for (k, &w) in k.iter_mut().zip(&block) {
            *k = nearest(steps * w / scale).clamp(-(MAX_Q << LOG_F), MAX_Q << LOG_F);
        }
        split::<LOG_F>(&k, q, r);
        let half = (1i32 << LOG_F) >> 1;
        for (w, k) in block.as_chunks::<LANES>().0.iter().zip(k.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let error = f64::from(w[i] - scale * ((k[i] + half) >> LOG_F) as f32);
                lanes[i] += error * error;
            }
        }
    }
    (scale, lanes.iter().sum())
}

/// Largest magnitude; more than any finite number if a weight is not finite.
#[inline(always)]
pub(super) fn absmax(w: &[f32]) -> f32 {
    f32::from_bits(magnitude_max(w))
}

/// Bits of the largest magnitude: 0x7F80_0000 and above mean infinite or NaN.
#[inline(always)]
pub(super) fn magnitude_max(w: &[f32]) -> u32 {
    w.iter().fold(0, |max, w| max.max(w.to_bits() & 0x7FFF_FFFF))
}

/// Whether all weights are finite.
pub(super) struct AllFinite<'a>(pub(super) &'a [f32]);

impl Kernel for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        magnitude_max(self.0) < f32::INFINITY.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_tensor::Isa;

    #[test]
    fn every_isa_gives_the_same_bits() {
        let w: Vec<f32> = (0..301).map(|i| ((i * 7919) % 1009) as f32 - 500.0).collect();
        for residual in [Residual::None, Residual::Bits4, Residual::Bits8] {
            let mut results = Vec::new();
            for isa in Isa::available() {
                let mut w = w.clone();
                let mut protected = vec![(3, bf16::ZERO), (300, bf16::ZERO)];
                let mut q = vec![0; w.len()];
                let mut r = vec![0; residual.row_bytes(w.len())];
                let report = isa.run(EncodeRow {
                    residual,
                    w: &mut w,
                    least_range: 0.0,
                    protected: &mut protected,
                    q: &mut q,
                    r: &mut r,
                });
                let errors = [report.squared_error, report.squared_error_unprotected];
                results.push((q, r, protected, report.scale, errors.map(f64::to_bits)));
            }
            for pair in results.windows(2) {
                assert_eq!(pair[0], pair[1], "{residual:?} on {:?}", Isa::available());
            }
        }
    }
}
