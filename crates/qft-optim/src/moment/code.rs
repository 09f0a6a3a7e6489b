//! What the codes of a moment stand for, and which of its two neighbours a value becomes.

use super::{BLOCK, block_scale};
use half::bf16;
use qft_tensor::numeric::{LANES, MAGIC};
use qft_tensor::rng::offset_from_bits;
use serde::{Deserialize, Serialize};

/// How a code stands for a value; `a = |m| / scale` over the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum MomentCode {
    /// Square-root companding: code `k = 127 sqrt(a)`, value `(k / 127)^2 max`. Small elements stay precise
    /// next to large ones.
    #[default]
    Sqrt,
    /// Uniform: `k = 127 a`.
    Linear,
    /// Square-root companding in 4 bits, two codes to a byte, none of them zero: `k` from -8 to 7 for the value
    /// `+-((k + 1/2) / 7.5)^2 scale`, where the scale is 2.5 times the root mean square of the block, or the largest magnitude if
    /// that is less. What is beyond it keeps its sign.
    Sqrt4,
    /// Of what is never negative: the byte `k - 1` for the value `(k / 256)^4 scale`, `k` from 1 to 256. None is zero. The scale is
    /// a power of two, so that it seldom changes, and with it what the codes stand for.
    #[cfg_attr(feature = "clap", value(skip))]
    Quartic,
}

/// A code that can be computed with: magnitudes from 0 to `MOST`, of a rising function.
trait Magnitudes {
    /// The largest code.
    const MOST: f32;
    /// What the scale is divided by, to be multiplied with [`Magnitudes::units`].
    const DIVISOR: f32;

    /// The value of a code, in units.
    fn units(k: f32) -> f32;
    /// The code below `a` units, and how far it is from there to `a` and to the code above.
    fn below(a: f32) -> (f32, f32, f32);
}

struct Sqrt;

impl Magnitudes for Sqrt {
    const MOST: f32 = 127.0;
    const DIVISOR: f32 = 16_129.0;

    #[inline(always)]
    fn units(k: f32) -> f32 {
        k * k.abs()
    }

    #[inline(always)]
    fn below(a: f32) -> (f32, f32, f32) {
        let k = a.sqrt().floor();
        (k, a - k * k, 2.0 * k + 1.0)
    }
}

struct Linear;

impl Magnitudes for Linear {
    const MOST: f32 = 127.0;
    const DIVISOR: f32 = 127.0;

    #[inline(always)]
    fn units(k: f32) -> f32 {
        k
    }

    #[inline(always)]
    fn below(a: f32) -> (f32, f32, f32) {
        let k = a.floor();
        (k, a - k, 1.0)
    }
}

/// The last factor of the largest code is exactly 1: the scale is the unit.
struct Quartic;

impl Magnitudes for Quartic {
    const MOST: f32 = 256.0;
    const DIVISOR: f32 = 1.0;

    #[inline(always)]
    fn units(k: f32) -> f32 {
        let root = k * (1.0 / 256.0);
        (root * root) * (root * root)
    }

    #[inline(always)]
    fn below(a: f32) -> (f32, f32, f32) {
        let k = (256.0 * a.sqrt().sqrt()).floor();
        let k = if k > 1.0 { k } else { 1.0 };
        let k = if k < 255.0 { k } else { 255.0 };
        let low = Self::units(k);
        (k, a - low, Self::units(k + 1.0) - low)
    }
}

impl MomentCode {
    /// Bytes of the codes of `cols` weights of a row.
    pub const fn row_bytes(self, cols: usize) -> usize {
        match self {
            Self::Sqrt4 => cols.div_ceil(2),
            Self::Sqrt | Self::Linear | Self::Quartic => cols,
        }
    }

    /// Whether [`super::Dither`] decides between neighbours, and not chance.
    pub const fn is_dithered(self) -> bool {
        matches!(self, Self::Sqrt4 | Self::Quartic)
    }

    /// The values of up to 128 codes of a block, and what is behind them.
    #[inline(always)]
    pub fn decode(self, codes: &[i8], scale: bf16) -> [f32; BLOCK] {
        let scale = scale.to_f32();
        match self {
            Self::Sqrt => decode::<Sqrt>(&bytes(codes), scale),
            Self::Linear => decode::<Linear>(&bytes(codes), scale),
            Self::Sqrt4 => decode_halves(&nibbles(codes), scale),
            Self::Quartic => decode::<Quartic>(&unsigned(codes), scale),
        }
    }

    /// Codes the `cols` values of a block, behind which are zeros, and returns the scale. The upper halves of `random` decide between
    /// neighbours.
    #[inline(always)]
    pub fn encode(
        self,
        values: &[f32; BLOCK],
        random: &[u32; BLOCK],
        (codes, cols): (&mut [i8], usize),
    ) -> bf16 {
        if self == Self::Sqrt4 {
            return encode_nibbles(values, random, (codes, cols));
        }
        let scale = match self {
            Self::Quartic => power_of_two(block_scale(largest(values))),
            Self::Sqrt | Self::Linear | Self::Sqrt4 => block_scale(largest(values)),
        };
        let unit = scale.to_f32();
        match self {
            Self::Sqrt => store(codes, &encode::<Sqrt>(values, random, unit), 0),
            Self::Linear => store(codes, &encode::<Linear>(values, random, unit), 0),
            Self::Sqrt4 | Self::Quartic => {
                store(codes, &encode::<Quartic>(values, random, unit), 1)
            }
        }
        scale
    }
}

/// Up to 128 codes of a byte, and zeros behind them.
#[inline(always)]
fn bytes(codes: &[i8]) -> [i8; BLOCK] {
    match codes.first_chunk() {
        Some(codes) => *codes,
        None => {
            let mut all = [0; BLOCK];
            all[..codes.len()].copy_from_slice(codes);
            all
        }
    }
}

/// Up to 128 codes of half a byte, the lower one first, and zeros behind them.
#[inline(always)]
fn nibbles(codes: &[i8]) -> [i8; BLOCK] {
    let mut all = [0; BLOCK];
    for (pair, &byte) in all.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *pair = [byte << 4 >> 4, byte >> 4];
    }
    all
}

/// Up to 128 codes of a byte that count from 1, and ones behind them.
#[inline(always)]
fn unsigned(codes: &[i8]) -> [i16; BLOCK] {
    let mut all = [1; BLOCK];
    for (wide, &code) in all.iter_mut().zip(codes) {
        *wide = i16::from(code as u8) + 1;
    }
    all
}

/// Bytes that count from `first`.
#[inline(always)]
fn store(codes: &mut [i8], all: &[i32; BLOCK], first: i32) {
    let fill = |codes: &mut [i8]| {
        for (code, k) in codes.iter_mut().zip(all) {
            *code = (k - first) as i8;
        }
    };
    match codes.first_chunk_mut::<BLOCK>() {
        Some(codes) => fill(codes),
        None => fill(codes),
    }
}

#[inline(always)]
fn decode<M: Magnitudes>(codes: &[impl Copy + Into<f32>; BLOCK], scale: f32) -> [f32; BLOCK] {
    let (unit, mut values) = (scale / M::DIVISOR, [0.0; BLOCK]);
    for (value, &code) in values.iter_mut().zip(codes) {
        *value = M::units(code.into()) * unit;
    }
    values
}

/// Codes in the low bits.
#[inline(always)]
fn encode<M: Magnitudes>(values: &[f32; BLOCK], random: &[u32; BLOCK], scale: f32) -> [i32; BLOCK] {
    let unit = scale / M::DIVISOR;
    let inverse = if unit > 0.0 { 1.0 / unit } else { 0.0 };
    let mut out = [0; BLOCK];
    for e in 0..BLOCK {
        let u = offset_from_bits(random[e] >> 16);
        let a = values[e].abs() * inverse;
        // Not a number becomes zero.
        let a = if a > 0.0 { a } else { 0.0 };
        let (k, rest, width) = M::below(a);
        let k = if rest > u * width { k + 1.0 } else { k };
        let k = if k < M::MOST { k } else { M::MOST };
        let k = if values[e] < 0.0 { -k } else { k };
        out[e] = (k + MAGIC).to_bits() as i32;
    }
    out
}

/// The next power of two that is not smaller; the largest one for what is beyond it.
#[inline(always)]
fn power_of_two(scale: bf16) -> bf16 {
    bf16::from_bits(((scale.to_bits() + 0x7F) & 0x7F80).min(0x7F00))
}

/// What the scale of [`MomentCode::Sqrt4`] is divided by: 7.5 squared.
const HALVES_DIVISOR: f32 = 56.25;

/// The value between whole codes, in units.
#[inline(always)]
fn half_units(h: f32) -> f32 {
    h * h.abs()
}

#[inline(always)]
fn decode_halves(codes: &[i8; BLOCK], scale: f32) -> [f32; BLOCK] {
    let (unit, mut values) = (scale / HALVES_DIVISOR, [0.0; BLOCK]);
    for (value, &code) in values.iter_mut().zip(codes) {
        *value = half_units(f32::from(code) + 0.5) * unit;
    }
    values
}

/// As [`MomentCode::encode`], in 4 bits. Behind the last column is an empty code.
#[inline(always)]
fn encode_nibbles(
    values: &[f32; BLOCK],
    random: &[u32; BLOCK],
    (codes, cols): (&mut [i8], usize),
) -> bf16 {
    let scale = block_scale(limited(largest(values), square_sum(values), cols));
    let mut k = encode_halves(values, random, scale.to_f32());
    k[cols..].fill(0);
    for (byte, pair) in codes.iter_mut().zip(k.as_chunks::<2>().0) {
        *byte = ((pair[0] & 15) | pair[1] << 4) as i8;
    }
    scale
}

/// Codes in the low bits.
#[inline(always)]
fn encode_halves(values: &[f32; BLOCK], random: &[u32; BLOCK], scale: f32) -> [i32; BLOCK] {
    let unit = scale / HALVES_DIVISOR;
    let inverse = if unit > 0.0 { 1.0 / unit } else { 0.0 };
    let mut out = [0; BLOCK];
    for e in 0..BLOCK {
        let u = offset_from_bits(random[e] >> 16);
        // Not a number becomes zero, and what is beyond the last code, it.
        let magnitude = values[e].abs() * inverse;
        let magnitude = if magnitude > 0.0 { magnitude } else { 0.0 };
        let magnitude = if magnitude < HALVES_DIVISOR { magnitude } else { HALVES_DIVISOR };
        let root = magnitude.sqrt();
        let (a, root) = if values[e] < 0.0 { (-magnitude, -root) } else { (magnitude, root) };
        let k = (root - 0.5).floor();
        let low = half_units(k + 0.5);
        let k = if a - low > u * (half_units(k + 1.5) - low) { k + 1.0 } else { k };
        out[e] = (k + MAGIC).to_bits() as i32;
    }
    out
}

/// How many times its root mean square a block reaches in [`MomentCode::Sqrt4`].
const REACH: f32 = 2.5;

/// The largest magnitude of a block, or [`REACH`] times the root mean square of its `count` elements if that is less.
#[inline(always)]
fn limited(largest: f32, square_sum: f32, count: usize) -> f32 {
    let limit = REACH * (square_sum / count as f32).sqrt();
    if limit < largest { limit } else { largest }
}

/// The sum of squares: of four neighbours by pairs, then of these sums the first half with the second, over and over.
#[inline(always)]
fn square_sum(values: &[f32; BLOCK]) -> f32 {
    const QUADS: usize = BLOCK / 4;
    let mut sums = [0.0; QUADS];
    for (sum, [a, b, c, d]) in sums.iter_mut().zip(values.as_chunks::<4>().0) {
        *sum = (a * a + b * b) + (c * c + d * d);
    }
    let mut half = QUADS / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        for (a, &b) in low.iter_mut().zip(&*high) {
            *a += b;
        }
        half /= 2;
    }
    sums[0]
}

/// The largest magnitude. Lane by lane in pairs: one after the other, each would wait for the last.
#[inline(always)]
fn largest(values: &[f32; BLOCK]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for chunk in values.as_chunks::<LANES>().0 {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value.abs() > *lane { value.abs() } else { *lane };
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (a, &b) in low.iter_mut().zip(&*high) {
            *a = if b > *a { b } else { *a };
        }
        half /= 2;
    }
    lanes[0]
}
