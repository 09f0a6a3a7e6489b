//! Roundings, scales and maxima of single numbers: the constants and formulas whose bits every device and every crate
//! must share.
//!
//! `kernels/include/numeric.cuh` is the same for kernels; a test of `qft-cuda` compares the constants.

use half::bf16;

/// `2^23 + 2^22`: adding it to a float of magnitude up to 2^22 leaves the nearest integer, ties to even, in the low
/// bits of the sum.
pub const MAGIC: f32 = 12_582_912.0;

/// Numbers whose largest magnitude is below this count as zeros: their inverse scale would overflow.
pub const TINY: f32 = 1e-30;

/// Lanes of a partial sum, and of a block of random words: one vector of the widest instruction set. The order of
/// additions is part of a result.
pub const LANES: usize = 16;

/// The nearest integer, ties to even, of a magnitude up to 2^22.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

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

/// The bits of a float that is not NaN, rounded so that the upper half is the nearest bf16, ties to even. The lower
/// half is left over.
#[inline(always)]
fn rounded_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7FFF + (bits >> 16 & 1))
}

/// The nearest bf16, ties to even; NaN stays a quiet NaN.
#[inline(always)]
pub fn nearest_bf16(x: f32) -> bf16 {
    let bits = if x.is_nan() { x.to_bits() | 0x40_0000 } else { rounded_bits(x) };
    bf16::from_bits((bits >> 16) as u16)
}

/// [`nearest_bf16`] in the bits of a float, as processors that multiply bf16 read it: what would be subnormal is
/// zero, and NaN is [`f32::NAN`].
#[inline(always)]
pub fn bf16_operand(x: f32) -> f32 {
    let nearest = f32::from_bits(rounded_bits(x) & 0xFFFF_0000);
    let nearest = if x.is_nan() { f32::NAN } else { nearest };
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { nearest }
}

/// The float that a bf16 stands for, exactly.
#[inline(always)]
pub fn widen_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// The unit of a sum of at most `count` numbers up to `bound`: a power of two, so that the sum has at most 2^30 of them and
/// half a unit for each number. NaN for a bound that is not finite.
#[inline(always)]
pub fn sum_unit(bound: f32, count: u32) -> f32 {
    if !bound.is_finite() {
        return f32::NAN;
    }
    // The bound is below two to this.
    let exponent = (bound.to_bits() >> 23) as i32 - 126;
    let doublings = 32 - count.saturating_sub(1).leading_zeros() as i32;
    let unit = (exponent + doublings - 30).max(-126);
    f32::from_bits(((unit + 127) as u32) << 23)
}

/// Largest magnitude of `x * fold`, or of `x`; order-free, so lanes may be combined at will.
#[inline(always)]
pub(crate) fn absmax(x: &[f32], fold: Option<&[f32]>) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (head, tail) = x.as_chunks::<LANES>();
    match fold {
        None => {
            for chunk in head {
                raise(&mut lanes, *chunk);
            }
            raise(&mut lanes, padded(tail, |i| tail[i]));
        }
        Some(fold) => {
            let (fold_head, fold_tail) = fold.as_chunks::<LANES>();
            for (chunk, folds) in head.iter().zip(fold_head) {
                let mut product = *chunk;
                for (x, &f) in product.iter_mut().zip(folds) {
                    *x *= f;
                }
                raise(&mut lanes, product);
            }
            raise(&mut lanes, padded(tail, |i| tail[i] * fold_tail[i]));
        }
    }
    lanes.iter().fold(0.0, |a, &b| a.max(b))
}

/// Raises each lane to the magnitude beside it. A comparison, not `f32::max`, whose care for NaN costs ten times
/// the rest; a NaN raises nothing either way.
#[inline(always)]
fn raise(lanes: &mut [f32; LANES], values: [f32; LANES]) {
    let mut magnitudes = values;
    for x in &mut magnitudes {
        *x = x.abs();
    }
    for (lane, x) in lanes.iter_mut().zip(magnitudes) {
        *lane = if x > *lane { x } else { *lane };
    }
}

/// A chunk from a remainder, zero beyond its end.
#[inline(always)]
fn padded(tail: &[f32], at: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut chunk = [0.0; LANES];
    for (i, x) in chunk.iter_mut().enumerate().take(tail.len()) {
        *x = at(i);
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_bf16_as_half_does() {
        for bits in (0..=u32::MAX).step_by(997).chain([0x7F80_0000, 0xFF80_0000, 0x7F80_0001]) {
            let x = f32::from_bits(bits);
            let want = bf16::from_f32(x);
            assert_eq!(nearest_bf16(x).to_bits(), want.to_bits(), "{bits:#x}");
            let operand = if x.is_subnormal() || x == 0.0 { 0.0 } else { want.to_f32() };
            let operand = if x.is_nan() { f32::NAN } else { operand };
            assert_eq!(bf16_operand(x).to_bits(), operand.to_bits(), "{bits:#x}");
            assert_eq!(widen_bf16(want).to_bits(), want.to_f32().to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn units_leave_room_for_all() {
        for bound in [0.0, f32::MIN_POSITIVE, 1e-30, 0.99, 1.0, 1.01, 3e5, 1e30] {
            for count in [1, 2, 3, 8, 4096] {
                let unit = sum_unit(bound, count);
                let most = f64::from(bound) * f64::from(count) / f64::from(unit);
                assert!(most <= f64::from(1 << 30), "{bound} {count}: {most}");
                let tight = most * 4.0 >= f64::from(1 << 30) || unit == f32::MIN_POSITIVE;
                assert!(tight, "{bound} {count}: {most}");
            }
        }
        assert!(sum_unit(f32::NAN, 2).is_nan() && sum_unit(f32::INFINITY, 2).is_nan());
    }

    #[test]
    fn nearest_is_that_of_the_standard_library() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 0.01 + 0.5;
            assert_eq!(nearest(x), x.round_ties_even() as i32, "{x}");
        }
        assert_eq!((nearest(4_194_304.0), nearest(-4_194_304.0)), (4_194_304, -4_194_304));
        assert_eq!((nearest_i8(0.5), nearest_i8(-1.5), nearest_i8(1e9)), (0, -2, 127));
        assert_eq!(nearest_i8(f32::NAN), 0);
    }
}
