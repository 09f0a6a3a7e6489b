//! Wide channels: the few columns of an activation that get a second INT8 digit.
//!
//! LLaMA models carry some channels whose activations are tens of times those of the others. In INT8 with one
//! scale per token such a channel sets the scale, and the others keep a few levels. A wide channel stands for
//! `(q + 128 * high) * scale` instead of `q * scale`, so the scale follows the other channels; a product with it
//! stays an exact sum of INT8 products. Which channels are wide is given to whoever quantizes: a choice made before,
//! from the largest magnitude of each channel ([`RaiseMaxima`], [`SelectWide`]), so that a token is quantized alike
//! whatever other tokens stand beside it.

use crate::{Buffer, Device, Error, Mat, MatMut, Owner, QMatrix, ScaleAxis, Span};

/// Places for wide channels in a matrix.
pub const WIDE: usize = 8;

/// The name of a place that is not used.
pub const NO_CHANNEL: u32 = u32::MAX;

/// What a unit of the second digit is worth, in units of the first.
pub const WIDE_RADIX: i32 = 128;

/// The largest magnitude of a wide value, in units of the scale: both digits are in range up to here.
pub const WIDE_MAX: f32 = (127 * WIDE_RADIX + 63) as f32;

/// By how much a wide column's maximum exceeds the largest one of the columns that are not.
pub const WIDE_RATIO: f32 = 2.0;

/// The wide channels of a [`crate::QMatrix`] `[T, K]`.
#[derive(Debug)]
pub struct Wide {
    /// u32 `[WIDE]`: distinct channels in rising order, then [`NO_CHANNEL`].
    pub channels: Buffer<u32>,
    /// i8 `[T, WIDE]`: the second digit of each; 0 in places that are not used.
    pub high: Buffer<i8>,
}

impl Wide {
    pub(crate) fn alloc(
        device: &dyn Device,
        owner: Owner,
        rows: usize,
        choice: Span<'_, u32>,
    ) -> Result<Self, Error> {
        if choice.len() != WIDE {
            return Err(Error::shape("QMatrix::alloc_wide", "8 places", choice.len()));
        }
        let mut channels = Buffer::alloc(device, owner, "wide channels", WIDE)?;
        let range = choice.start()..choice.start() + WIDE;
        channels.copy_from(device, 0, choice.buffer(), range)?;
        Ok(Self { channels, high: Buffer::alloc(device, owner, "wide digits", rows * WIDE)? })
    }
}

/// The second digits of an operand of [`crate::GemmI8`].
#[derive(Debug, Clone, Copy)]
pub struct WideDigits<'a> {
    /// u32 `[WIDE]`, as in [`Wide`].
    pub channels: Span<'a, u32>,
    /// i8 `[T, WIDE]`.
    pub high: Mat<'a, i8>,
}

/// Raises `maxima[k]` to the largest magnitude in column `k` of `x`, both digits of a wide channel counted.
///
/// Shapes: `x` `[T, K]` with a scale per row, `maxima` f32 `[K]`. Numerics: one f32 product per element; a maximum
/// has no order, so neither the cut of a batch nor the number of threads changes it. Errors: [`Error::ShapeMismatch`].
#[derive(Debug)]
pub struct RaiseMaxima<'a> {
    /// The activation.
    pub x: &'a QMatrix,
    /// Not negative.
    pub maxima: &'a mut Buffer<f32>,
}

impl RaiseMaxima<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "raise_maxima";
        if self.x.axis() != ScaleAxis::Row {
            return Err(Error::shape(OP, "a scale per row", format_args!("{:?}", self.x.axis())));
        }
        let (cols, got) = (self.x.cols(), self.maxima.len());
        if cols == got {
            return Ok(());
        }
        Err(Error::shape(OP, format_args!("{cols} maxima"), format_args!("{got}")))
    }
}

/// Chooses the wide channels of an input with these maxima: see [`select`].
///
/// Shapes: `maxima` f32 `[K]`, `choice` u32 `[1, WIDE]`. Errors: [`Error::ShapeMismatch`].
#[derive(Debug)]
pub struct SelectWide<'a> {
    /// Not negative.
    pub maxima: &'a Buffer<f32>,
    /// The result.
    pub choice: MatMut<'a, u32>,
}

impl SelectWide<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        let (rows, cols) = (self.choice.rows(), self.choice.cols());
        if (rows, cols) == (1, WIDE) {
            return Ok(());
        }
        Err(Error::shape(
            "select_wide",
            format_args!("[1, {WIDE}]"),
            format_args!("[{rows}, {cols}]"),
        ))
    }
}

/// The wide channels of an input with these column maxima: of the [`WIDE`] columns with the largest (of equal ones
/// the first), those whose maximum exceeds [`WIDE_RATIO`] times the largest of the other columns.
///
/// Rising, then [`NO_CHANNEL`]. An input of no more than [`WIDE`] columns has none.
pub fn select(maxima: &[f32]) -> [u32; WIDE] {
    let mut places = [NO_CHANNEL; WIDE];
    // The largest so far, falling; the last one is the largest of the others.
    let mut top = [(0.0f32, NO_CHANNEL); WIDE + 1];
    for (channel, &max) in maxima.iter().enumerate() {
        if max > top[WIDE].0 {
            let place = top.partition_point(|&(other, _)| other >= max);
            top.copy_within(place..WIDE, place + 1);
            top[place] = (max, channel as u32);
        }
    }
    if maxima.len() <= WIDE {
        return places;
    }
    let border = WIDE_RATIO * top[WIDE].0;
    let wide = top[..WIDE].iter().take_while(|&&(max, _)| max > border);
    for (place, &(_, channel)) in places.iter_mut().zip(wide) {
        *place = channel;
    }
    places.sort_unstable();
    places
}

/// `(q, high)` of a value in units of the scale: `q + 128 * high` is the nearest integer, ties to even, clamped to
/// [`WIDE_MAX`]; `q` is in -64..64. NaN gives 0.
#[inline(always)]
pub fn digits(x: f32) -> (i8, i8) {
    let x = if x.is_nan() { 0.0 } else { x.clamp(-WIDE_MAX, WIDE_MAX) };
    let n = x.round_ties_even() as i32;
    let high = (n + WIDE_RADIX / 2).div_euclid(WIDE_RADIX);
    ((n - WIDE_RADIX * high) as i8, high as i8)
}

/// The absmax that a row's scale is made from, given those of its ordinary and of its wide channels: the ordinary
/// one, unless a wide value would then exceed [`WIDE_MAX`].
#[inline(always)]
pub fn row_absmax(ordinary: f32, wide: f32) -> f32 {
    let wide = wide * (127.0 / WIDE_MAX);
    if wide > ordinary { wide } else { ordinary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_nearest_integer() {
        for n in -16319i32..=16319 {
            let (q, high) = digits(n as f32);
            assert_eq!(i32::from(q) + 128 * i32::from(high), n);
            assert!((-64..64).contains(&q), "{n}: {q}");
        }
        assert_eq!(digits(f32::INFINITY), (63, 127));
        assert_eq!(digits(f32::NEG_INFINITY), (-63, -127));
        assert_eq!(digits(f32::NAN), (0, 0));
        assert_eq!((digits(0.5), digits(1.5), digits(64.5)), ((0, 0), (2, 0), (-64, 1)));
    }

    #[test]
    fn wide_channels_stand_out_from_the_others() {
        let none = [NO_CHANNEL; WIDE];
        let places = |channels: &[u32]| {
            let mut places = none;
            places[..channels.len()].copy_from_slice(channels);
            places
        };
        let with = |large: &[(usize, f32)]| {
            let mut maxima = vec![1.0; 40];
            large.iter().for_each(|&(channel, max)| maxima[channel] = max);
            select(&maxima)
        };
        assert_eq!(with(&[]), none);
        assert_eq!(with(&[(7, 2.0)]), none, "twice the others is not more than twice");
        assert_eq!(with(&[(30, 2.1), (7, 60.0), (8, 1.9)]), places(&[7, 30]));
        // Of nine equal ones none stands out; of nine different ones, those that exceed twice the ninth.
        let nine =
            |max: fn(usize) -> f32| with(&(0..9).map(|i| (4 * i, max(i))).collect::<Vec<_>>());
        assert_eq!(nine(|_| 50.0), none);
        assert_eq!(nine(|i| if i < 2 { 101.0 } else { 50.0 }), places(&[0, 4]));
        assert_eq!(nine(|i| if i == 8 { 20.0 } else { 50.0 }), [0, 4, 8, 12, 16, 20, 24, 28]);
        // Nothing to compare with; and nothing but zeros and NaN, which is never the larger one.
        assert_eq!(select(&[1.0, 100.0]), none);
        assert_eq!(select(&[0.0; 20]), none);
        assert_eq!(select(&[f32::NAN; 20]), none);
    }
}
