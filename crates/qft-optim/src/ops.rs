//! Update operations, and the trait a device implements.

use crate::{Error, FloatRule, FloatState, LionConfig, Momentum, WeightRounding};
use qft_quant::{HybridMatrix, HybridOps};
use qft_tensor::{Buffer, Device, Mat, MatMut, Owner, RngKey, Span};
use std::ops::Range;

/// What the updates of one step add up, kept on the device: `[tensors, 2]`.
///
/// Per tensor: the sum of squares of its gradient (after `grad_scale`), and the number of rows whose scale grew
/// because a weight left its range. Where rows are asked for, also the sum of squares of each row's gradient: by these, a
/// norm depends neither on how rows are cut into calls, nor on which process has which.
#[derive(Debug)]
pub struct UpdateStats {
    /// f32 `[tensors, 2]`.
    pub sums: Buffer<f32>,
    /// Of the rows, if they were asked for.
    pub rows: Option<RowSquares>,
}

/// Sums of squares by row, of some tensors.
#[derive(Debug)]
pub struct RowSquares {
    /// f32, the rows of all tensors that have any.
    pub squares: Buffer<f32>,
    /// Where those of each tensor begin, and the last ends.
    starts: Vec<usize>,
}

impl RowSquares {
    /// The rows of a tensor, if it has any.
    pub fn of(&self, tensor: usize) -> Option<Range<usize>> {
        let places = *self.starts.get(tensor)?..*self.starts.get(tensor + 1)?;
        Some(places).filter(|places| !places.is_empty())
    }
}

impl UpdateStats {
    /// All zero.
    pub fn zeros(device: &dyn Device, tensors: usize) -> Result<Self, Error> {
        let sums = Buffer::zeros(device, Owner::Workspace, "update stats", tensors * 2)?;
        Ok(Self { sums, rows: None })
    }

    /// The same, with sums by row: `rows` has their number in each tensor, 0 for one that has none.
    pub fn with_rows(device: &dyn Device, rows: &[usize]) -> Result<Self, Error> {
        let starts: Vec<usize> = std::iter::once(0)
            .chain(rows.iter().scan(0, |end, rows| {
                *end += rows;
                Some(*end)
            }))
            .collect();
        let all = starts[rows.len()];
        let squares = Buffer::zeros(device, Owner::Workspace, "squares of rows", all)?;
        let zeros = Self::zeros(device, rows.len())?;
        Ok(Self { rows: Some(RowSquares { squares, starts }), ..zeros })
    }

    /// All zero again.
    ///
    /// Errors: those of the device.
    pub fn clear(&mut self, device: &dyn Device) -> Result<(), Error> {
        self.sums.fill_zero(device)?;
        if let Some(rows) = &mut self.rows {
            rows.squares.fill_zero(device)?;
        }
        Ok(())
    }

    /// Where the sums of these rows of a tensor are kept, if they are.
    pub fn squares_of(
        &mut self,
        tensor: u32,
        rows: &Range<usize>,
    ) -> Option<(&mut Buffer<f32>, Range<usize>)> {
        let all = self.rows.as_mut()?;
        let first = all.of(tensor as usize)?.start;
        Some((&mut all.squares, first + rows.start..first + rows.end))
    }
}

/// Updates some rows of a hybrid matrix and its momentum by quantized Lion.
///
/// Shapes: `grad` f32 `[rows.len(), K]`.
///
/// Numerics, all in f32 without contraction; products and sums in the order written, `1 - b1`, `1 - b2` and
/// `lr wd` computed once. `g = grad * grad_scale`; `m` is the decoded momentum, `code |code| (max / 127^2)` for
/// [`crate::MomentumCode::Sqrt`] and `code (max / 127)` for `Linear`, the bracket computed once a block.
/// * Direction: `c = b1 m + (1 - b1) g`; `sign(c)` is 0 for zero and NaN. The step's direction `e` is `sign(c)`.
/// * Rotation: momentum is that of the weights themselves, whatever their storage, since signs in another basis would be
///   another optimizer. Where the matrix is stored [rotated](qft_tensor::rotation), `g` is `grad` rotated back, times
///   `grad_scale`, and `e` is the rotated row of `sign(c)`, which is exact: each is a whole number over 8.
/// * Weight: the fixed-point `k = q F + r` becomes `k + nearest(d + (u - 1/2))`, ties to even, with
///   `d = -((F lr / s) e) - (lr wd) k` limited to +-[`crate::lion::MAX_STEP`], `u` from the low 16 bits of
///   the element's random word ([`qft_tensor::rng::offset_from_bits`]); `u = 1/2` for
///   [`WeightRounding::Nearest`].
/// * Protected weight: `v - lr (e + wd v)`, rounded to bf16 by adding the same 16 bits below the last bit
///   kept and cutting there (or to nearest); `q = r = 0` stay.
/// * Momentum: `m' = b2 m + (1 - b2) g`. The block's new `max` is [`crate::momentum::block_scale`] of the largest
///   magnitude. With `a = |m'| (1 / (max / 127^2))` and `k = floor(sqrt(a))` the code is `k`, or `k + 1` if
///   `a - k^2 > u (2 k + 1)`; linear: `a = |m'| (1 / (max / 127))`, `k = floor(a)`, one more if `a - k > u`.
///   At most 127, with the sign of `m'`; `u` from the high 16 bits. Momentum is always rounded stochastically.
/// * Random words: element `e` of block `b` of row `n` uses word `e % 64` of random block
///   `2 (n ceil(K / 128) + b) + e / 64`.
/// * Range: a row with `kmax = max |k| > 127 F` gets the scale `s' = s (kmax / (124 F))`, and each `k` becomes
///   `nearest(k (s / s') + (u - 1/2))`: nothing is clamped. Here `u` is the usual offset of 16 bits
///   ([`qft_tensor::rng::rounding_offsets`]) of random block `n ceil(K / 128) + b` of the stream whose purpose is
///   [`RngKey::rescaling`]; again `1/2` for nearest.
/// * `stats`: the squares of `g` are summed in 16 f32 lanes within a row (column modulo 16), then lanes and rows
///   in f64; a GPU adds in an order of its own. Only these sums depend on the device, and that of the tensor on how rows are
///   cut into calls, in their last bits.
/// * Rows: those of [`Momentum::shard`] alone, and of the residual's as well.
///
/// A gradient that is not finite makes the sum of squares so, and leaves weights and scales finite.
/// Errors: shapes, and [`LionConfig::check`]. Source: docs/ALGORITHM.md#quantized-lion.
#[derive(Debug)]
pub struct LionUpdate<'a> {
    /// The weights `[N, K]`.
    pub weight: &'a mut HybridMatrix,
    /// Their momentum.
    pub momentum: &'a mut Momentum,
    /// Which rows `grad` belongs to.
    pub rows: Range<usize>,
    /// Gradient of these rows; rotated in place where the matrix is stored rotated.
    pub grad: MatMut<'a, f32>,
    /// Multiplies the gradient first: clipping.
    pub grad_scale: f32,
    /// Learning rate of this step.
    pub lr: f32,
    /// Hyper-parameters.
    pub config: LionConfig,
    /// How weights are rounded.
    pub rounding: WeightRounding,
    /// The random stream of this tensor and step; [`RngKey::tensor`] is also the line in `stats`.
    pub key: RngKey,
    /// Where sums are kept.
    pub stats: &'a mut UpdateStats,
}

impl LionUpdate<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "lion_update";
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
        let has_residual =
            self.weight.residual.is_none() || self.weight.residual_shard().owns(&self.rows);
        if !self.momentum.shard().owns(&self.rows) || !has_residual {
            return Err(shape(OP, "rows that this process owns", format!("{:?}", self.rows)));
        }
        if (self.momentum.rows(), self.momentum.cols()) != (rows, cols) {
            return Err(shape(
                OP,
                format!("momentum [{rows}, {cols}]"),
                format!("[{}, {}]", self.momentum.rows(), self.momentum.cols()),
            ));
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

/// Updates some elements of a float parameter.
///
/// Shapes: `weight[start..start + grad.len()]` and the same elements of the moments.
/// Numerics: f32 without contraction, `g = grad * grad_scale`. Lion as [`LionConfig`] writes it. AdamW as
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
    pub rule: FloatRule,
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
        let adam = matches!(self.rule, FloatRule::AdamW { .. });
        if self.state.v.as_ref().map(Buffer::len) != adam.then_some(len) {
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
    /// See [`LionUpdate`].
    fn lion_update(&self, op: LionUpdate<'_>) -> Result<(), Error>;

    /// See [`FloatUpdate`].
    fn float_update(&self, op: FloatUpdate<'_>) -> Result<(), Error>;

    /// See [`SquareSum`].
    fn square_sum(&self, op: SquareSum<'_>) -> Result<(), Error>;
}
