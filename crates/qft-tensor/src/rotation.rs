//! The rotation of a linear layer's input: an orthogonal mix of its channels, after which no channel stands out.
//!
//! LLaMA models carry some channels whose activations are tens of times those of the others, and tokens whose few large
//! values stand anywhere. In INT8 with one scale per token such a value sets the scale, and the others keep a few levels.
//! A product does not change if both its operands are rotated along the contraction, `(x R) (W R)^T = x W^T`, and in
//! `x R` a large value is spread over a group of channels. So weights are stored as `W R`, and inputs are rotated before
//! they are quantized. `R` is symmetric and its own inverse: the same operation leads back.
//!
//! `R` mixes groups of 64 channels by the Hadamard matrix of that size over 8. The channels of a group lie as far apart
//! as they can: of K = 64 m channels, channel c is in group c mod m. What 64 does not divide is mixed by 16 and by 4, and
//! up to three channels are left as they are. These sizes are powers of four, so the matrix has no rounded entries:
//! a rotation is sums and exact halvings, three rounded levels of them for 64.
//!
//! Source: QuaRot (Ashkboos et al., arXiv 2404.00456), which rotates the residual stream of a frozen model;
//! docs/ALGORITHM.md#rotation.

use crate::MatMut;

/// Sizes of a group of channels, the largest first: powers of four.
pub const GROUPS: [usize; 3] = [64, 16, 4];

/// Rotates each row in place: `x <- x R`.
///
/// Shapes: `x` f32 `[T, K]`. Numerics: [`rotate`].
#[derive(Debug)]
pub struct RotateRows<'a> {
    /// The rows.
    pub x: MatMut<'a, f32>,
}

/// Rotates a row in place.
///
/// Numerics: for each level from neighbours in a group to those farthest apart, four values `a, b, c, d` become
/// `((a + b) + (c + d)) / 2` and its like with the signs of the Hadamard matrix, each sum one f32 operation. Done twice,
/// it is the identity but for rounding.
#[inline(always)]
pub fn rotate(row: &mut [f32]) {
    let mut rest = row;
    for group in GROUPS {
        let (mixed, behind) = rest.split_at_mut(rest.len() / group * group);
        let mut distance = mixed.len() / group;
        while distance < mixed.len() {
            level(mixed, distance);
            distance *= 4;
        }
        rest = behind;
    }
}

/// Mixes all four values that lie `distance` apart.
#[inline(always)]
fn level(mixed: &mut [f32], distance: usize) {
    for fours in mixed.chunks_exact_mut(4 * distance) {
        let (ab, cd) = fours.split_at_mut(2 * distance);
        let ((a, b), (c, d)) = (ab.split_at_mut(distance), cd.split_at_mut(distance));
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (plus, minus) = ((*a + *b, *c + *d), (*a - *b, *c - *d));
            *a = 0.5 * (plus.0 + plus.1);
            *b = 0.5 * (minus.0 + minus.1);
            *c = 0.5 * (plus.0 - plus.1);
            *d = 0.5 * (minus.0 - minus.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(mut x: Vec<f32>) -> Vec<f32> {
        rotate(&mut x);
        x
    }

    fn unit(len: usize, at: usize) -> Vec<f32> {
        (0..len).map(|i| f32::from(u8::from(i == at))).collect()
    }

    #[test]
    fn is_symmetric_orthogonal_and_its_own_inverse() {
        for len in [0, 1, 3, 4, 20, 64, 172, 192, 576] {
            let matrix: Vec<_> = (0..len).map(|at| rotated(unit(len, at))).collect();
            for (i, row) in matrix.iter().enumerate() {
                for (j, &value) in row.iter().enumerate() {
                    assert_eq!(value, matrix[j][i], "{len}: {i} {j}");
                    let dot: f32 = row.iter().zip(&matrix[j]).map(|(a, b)| a * b).sum();
                    assert_eq!(dot, f32::from(u8::from(i == j)), "{len}: {i} {j}");
                }
                assert_eq!(rotated(row.clone()), unit(len, i));
            }
        }
    }

    #[test]
    fn a_large_value_is_spread_over_its_group() {
        // 576 = 64 * 9: channel 130 is with those that are 130 mod 9 = 4.
        let spread = rotated(unit(576, 130));
        for (channel, value) in spread.iter().enumerate() {
            assert_eq!(value.abs(), if channel % 9 == 4 { 0.125 } else { 0.0 }, "{channel}");
        }
        // 172 = 2 * 64 + 2 * 16 + 3 * 4.
        for (at, size) in [(0, 64), (127, 64), (128, 16), (159, 16), (160, 4), (171, 4)] {
            let spread = rotated(unit(172, at));
            assert_eq!(spread.iter().filter(|value| **value != 0.0).count(), size, "{at}");
        }
    }
}
