//! Update operations, and the trait a device implements.

use crate::{Error, FloatState, MatrixState, MomentCode, Rule, UpdateStats, WeightRounding};
use qft_quant::{HybridMatrix, HybridOps};
use qft_tensor::{Buffer, Mat, MatMut, RngKey, Span};
use std::ops::Range;

/// Updates some rows of a hybrid matrix and its state by a rule: any rule, with moments in any code.
///
/// Shapes: `grad` f32 `[rows.len(), K]`.
///
/// Numerics, all in f32 without contraction; products and sums in the order written, `1 - b1`, `1 - b2` and
/// `lr wd` computed once. `g = grad * grad_scale`; `m` and `v` are the decoded moments.
/// * Values: of code `k` it is `k |k| (s / 127^2)` for [`MomentCode::Sqrt`], `h |h| (s / 7.5^2)` with `h = k + 1/2` for `Sqrt4`,
///   `k (s / 127)` for `Linear`, the bracket computed once a block of 128, and `(k / 256)^4 s` for `Quartic`, as the square of a
///   square; `s` is the block's scale.
/// * Lion: `c = b1 m + (1 - b1) g`, the direction `d` is `sign(c)`, which is 0 for zero and NaN; `m' = b2 m + (1 - b2) g`.
/// * AdamW: `m' = b1 m + (1 - b1) g`, `v' = b2 v + (1 - b2) (g g)`, `d = (m' / (1 - b1^t)) / (sqrt(v' / (1 - b2^t)) + eps)`
///   limited to +-[`crate::adamw::MAX_DIRECTION`], 0 for NaN; `t` is the step of [`RngKey::step`], counted from 1, and the inverses of
///   both brackets are computed in f64 and rounded once.
/// * Rotation: moments are those of the weights themselves, whatever their storage, since signs and quotients in another basis
///   would be another optimizer. Where the matrix is stored [rotated](qft_tensor::rotation), `g` is `grad` rotated back, times
///   `grad_scale`, and the step's direction `e` is the rotated row of `d`; of signs it is exact: each is a whole number over 8.
///   Elsewhere `e` is `d`.
/// * Weight: the fixed-point `k = q F + r` becomes `k + nearest(x + (u - 1/2))`, ties to even, with
///   `x = -((F lr / s) e) - (lr wd) k` limited to +-[`crate::weight::MAX_STEP`], `u` from the low 16 bits of
///   the element's random word ([`qft_tensor::rng::offset_from_bits`]); `u = 1/2` for
///   [`WeightRounding::Nearest`].
/// * Protected weight: `v - lr (e + wd v)`, rounded to bf16 by adding the same 16 bits below the last bit
///   kept and cutting there (or to nearest); `q = r = 0` stay.
/// * Codes: the block's new scale is [`crate::moment::block_scale`] of the largest magnitude of a new moment; for `Quartic` the next
///   power of two, and for `Sqrt4` that of 2.5 times the root mean square if that is less, squares being added by pairs of
///   neighbours, these by pairs, and then the first half of the sums to the second, over and over. With `a` a magnitude in units
///   (`s / 127^2`, `s / 127`, `s`), as a product with the unit's inverse, and `k` the largest code whose value `p(k)` is not above
///   `a` (by a square root, or two, cut to a whole number), the code is `k`, or `k + 1` if `a - p(k) > u (p(k + 1) - p(k))`; at most
///   127 or 256, of `Quartic` at least 1, with the sign of the moment. For `Sqrt4` the same with `a` and its root signed and
///   within +-7.5^2 and +-7.5. Moments are always rounded so, whatever becomes of weights. `u` is from the high 16 bits of the
///   element's random word, and for `Sqrt4` and `Quartic` of its word in [`crate::moment::Dither`].
/// * Random words: element `e` of block `b` of row `n` uses word `e % 64` of random block
///   `2 (n ceil(K / 128) + b) + e / 64`.
/// * Range: a row with `kmax = max |k| > 127 F` gets the scale `s' = s (kmax / (124 F))`, and each `k` becomes
///   `nearest(k (s / s') + (u - 1/2))`: nothing is clamped. Here `u` is the usual offset of 16 bits
///   ([`qft_tensor::rng::rounding_offsets`]) of random block `n ceil(K / 128) + b` of the stream whose purpose is
///   [`RngKey::rescaling`]; again `1/2` for nearest.
/// * `stats`: the squares of `g` are summed in 16 f32 lanes within a row (column modulo 16), then lanes and rows
///   in f64; a GPU adds in an order of its own. Only these sums depend on the device, and that of the tensor on how rows are
///   cut into calls, in their last bits.
/// * Rows: those of [`crate::Moment::shard`] alone, and of the residual's as well.
///
/// A gradient that is not finite makes the sum of squares so, and leaves weights and scales finite.
/// Errors: shapes, a state that is not the rule's, and [`Rule::check`]. Source: docs/ALGORITHM.md#quantized-updates.
#[derive(Debug)]
pub struct MatrixUpdate<'a> {
    /// The weights `[N, K]`.
    pub weight: &'a mut HybridMatrix,
    /// Their moments.
    pub state: &'a mut MatrixState,
    /// The rule.
    pub rule: Rule,
    /// Which rows `grad` belongs to.
    pub rows: Range<usize>,
    /// Gradient of these rows, as it is stored; unspecified afterwards.
    pub grad: MatMut<'a, f32>,
    /// Multiplies the gradient first: clipping.
    pub grad_scale: f32,
    /// Learning rate of this step.
    pub lr: f32,
    /// How weights are rounded.
    pub rounding: WeightRounding,
    /// The random stream of this tensor and step; [`RngKey::tensor`] is also the line in `stats`.
    pub key: RngKey,
    /// Where sums are kept.
    pub stats: &'a mut UpdateStats,
}

impl MatrixUpdate<'_> {
    /// Checks all shapes, and that rule and state belong together.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "matrix_update";
        self.rule.check()?;
        let (rows, cols) = (self.weight.rows(), self.weight.cols());
        if self.rows.start > self.rows.end || self.rows.end > rows {
            return Err(shape(OP, format!("rows within 0..{rows}"), format!("{:?}", self.rows)));
        }
        if (self.grad.rows(), self.grad.cols()) != (self.rows.len(), cols) {
            return Err(shape(
                OP,
                format!("gradient [{}, {cols}]", self.rows.len()),
                format!("[{}, {}]", self.grad.rows(), self.grad.cols()),
            ));
        }
        let MatrixState { first, second } = &*self.state;
        let codes = (first.code, second.as_ref().map(|second| second.code));
        if !codes_fit(self.rule, codes) {
            return Err(shape(OP, "moments that fit the rule", format!("{codes:?}")));
        }
        let has_residual =
            self.weight.residual.is_none() || self.weight.residual_shard().owns(&self.rows);
        if !first.shard().owns(&self.rows) || !has_residual {
            return Err(shape(OP, "rows that this process owns", format!("{:?}", self.rows)));
        }
        for moment in std::iter::once(first).chain(second) {
            if (moment.rows(), moment.cols()) != (rows, cols) {
                return Err(shape(
                    OP,
                    format!("a moment [{rows}, {cols}]"),
                    format!("[{}, {}]", moment.rows(), moment.cols()),
                ));
            }
        }
        if self.stats.sums.len() < 2 * (self.key.tensor() as usize + 1) {
            return Err(shape(
                OP,
                format!("stats of more than {} tensors", self.key.tensor()),
                self.stats.sums.len() / 2,
            ));
        }
        Ok(())
    }
}

/// Whether moments in such codes are what the rule keeps.
fn codes_fit(rule: Rule, (first, second): (MomentCode, Option<MomentCode>)) -> bool {
    let second_fits = match rule.moments() {
        1 => second.is_none(),
        _ => second == Some(MomentCode::Quartic),
    };
    second_fits && rule.codes().contains(&first)
}

/// Updates some elements of a float parameter.
///
/// Shapes: `weight[start..start + grad.len()]` and the same elements of the moments.
/// Numerics: f32 without contraction, `g = grad * grad_scale`. Lion as [`crate::LionConfig`] writes it. AdamW as
/// PyTorch's, with `t = step + 1`: `w (1 - lr wd)`, from which `(lr / (1 - b1^t)) (m / (sqrt(v) / sqrt(1 - b2^t) +
/// eps))` is subtracted; both factors are computed in f64 and rounded once.
#[derive(Debug)]
pub struct FloatUpdate<'a> {
    /// The parameter.
    pub weight: &'a mut Buffer<f32>,
    /// Its moments.
    pub state: &'a mut FloatState,
    /// First element that `grad` belongs to.
    pub start: usize,
    /// Gradient.
    pub grad: Span<'a, f32>,
    /// Multiplies the gradient first: clipping.
    pub grad_scale: f32,
    /// Learning rate of this step.
    pub lr: f32,
    /// The rule.
    pub rule: Rule,
    /// Steps done before this one.
    pub step: u32,
    /// The line in `stats`.
    pub tensor: u32,
    /// Where sums are kept.
    pub stats: &'a mut UpdateStats,
}

impl FloatUpdate<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "float_update";
        let (len, end) = (self.weight.len(), self.start.saturating_add(self.grad.len()));
        if end > len || self.state.m.len() != len {
            return Err(shape(
                OP,
                format!("elements within 0..{len}"),
                format!("{}..{end}", self.start),
            ));
        }
        let second = (self.rule.moments() > 1).then_some(len);
        if self.state.v.as_ref().map(Buffer::len) != second {
            return Err(shape(OP, "moments that fit the rule", format!("{:?}", self.rule)));
        }
        if self.stats.sums.len() < 2 * (self.tensor as usize + 1) {
            return Err(shape(
                OP,
                format!("stats of more than {} tensors", self.tensor),
                self.stats.sums.len() / 2,
            ));
        }
        Ok(())
    }
}

/// Adds the sum of squares of a gradient to `stats`, without any update: for exact clipping. Where `stats` keeps them by row,
/// they go there instead.
///
/// Shapes: `grad` f32. Numerics: f32 lanes within a row, f64 across rows, in a fixed order that is the device's.
#[derive(Debug)]
pub struct SquareSum<'a> {
    /// Gradient.
    pub grad: Mat<'a, f32>,
    /// The first of its rows in the tensor.
    pub first_row: usize,
    /// The line in `stats`.
    pub tensor: u32,
    /// Where sums are kept.
    pub stats: &'a mut UpdateStats,
}

impl SquareSum<'_> {
    /// Checks that `stats` has the line.
    pub fn check(&self) -> Result<(), Error> {
        if self.stats.sums.len() < 2 * (self.tensor as usize + 1) {
            let want = format!("stats of more than {} tensors", self.tensor);
            return Err(shape("square_sum", want, self.stats.sums.len() / 2));
        }
        Ok(())
    }
}

fn shape(op: &'static str, want: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
    qft_tensor::Error::shape(op, want, got).into()
}

/// Updates of a device.
pub trait OptimOps: HybridOps {
    /// See [`MatrixUpdate`].
    fn matrix_update(&self, op: MatrixUpdate<'_>) -> Result<(), Error>;

    /// See [`FloatUpdate`].
    fn float_update(&self, op: FloatUpdate<'_>) -> Result<(), Error>;

    /// See [`SquareSum`].
    fn square_sum(&self, op: SquareSum<'_>) -> Result<(), Error>;
}
