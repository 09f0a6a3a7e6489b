//! The exponential function, without branches: the same bits on every instruction set.

use qft_tensor::numeric::MAGIC;

/// Below this the result is 0: `exp` would be subnormal.
const LOWEST: f32 = -87.336_54;
/// Above this the result stays at its largest value, about 2.4e38.
const HIGHEST: f32 = 88.376_26;
/// `ln 2` in two parts; the first has few bits, so that its multiples are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x` within 1 ulp of the true value or 0; 0 for `x < -87.33`, saturated above 88.37; NaN stays NaN.
#[inline(always)]
#[allow(clippy::manual_clamp, clippy::excessive_precision)] // `clamp` costs another comparison for NaN.
pub(super) fn exp(x: f32) -> f32 {
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    // A minimax polynomial of (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2 (Cephes).
    let p = 1.987_569_15e-4f32;
    let p = p.mul_add(r, 1.398_199_95e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5.000_000_1e-1);
    let e = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < LOWEST { 0.0 } else { e * power }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_one_ulp_of_the_double_precision_value() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -87.3 + i as f32 * (175.6 / 2e6);
            let want = f64::from(x).exp();
            let ulp = f64::from((want as f32).next_up()) - f64::from(want as f32);
            worst = worst.max((f64::from(exp(x)) - want).abs() / ulp);
        }
        assert!(worst < 1.0, "worst error {worst} ulp");
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(-88.0), 0.0);
        assert!(exp(f32::INFINITY).is_finite() && exp(f32::INFINITY) > 2e38);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-38);
        assert_eq!(sigmoid(0.0), 0.5);
    }
}
