//! The linear layer `y = x W^T`: three products, in INT8 or in float.
//!
//! In INT8 the scale that lies on the contraction axis of a product is folded into the other operand before that
//! operand is quantized, so one stored copy of each operand serves all three products:
//!
//! * `y[t, n] = a_t s_n sum_k X[t, k] Q[n, k]`, with the input quantized per token (`a_t`);
//! * `dx[t, k] = z_t sum_n Z[t, n] Q[n, k]`, with `dy[t, n] s_n` quantized per token (`z_t`);
//! * `dW[n, k] = u_n sum_t U[t, n] X[t, k]`, with `dy[t, n] a_t` quantized per output (`u_n`).
//!
//! Input and weight are [rotated](qft_tensor::rotation) along the contraction of the first product, so that no channel of
//! the input stands out: `dx` and `dW` come out rotated, too. Whoever reads `dx` rotates it back, once, with [`rotate`]; `dW`
//! goes to the sink as it is.
//! Protected weights read the same integers and join in float: see `docs/ALGORITHM.md#linear`.

use super::share_sum::ShareSum;
use crate::activations::Activations;
use crate::{Context, Error, Matrix, Outlet, Weight};
use qft_quant::{DecodeRows, HybridMatrix, Precision, SparseBackward, SparseForward};
use qft_tensor::{
    Buffer, GemmF32, GemmI8, GemmOut, Orientation, Owner, Purpose, QMatrix, QuantizeCols,
    QuantizeRows, RotateRows, Rounding, ScaleAxis, Span,
};
use std::ops::Range;
use std::sync::Arc;

/// Elements of a gradient block, and of a decoded weight block: bounds what exists of a gradient at a time,
/// whatever the size of the model.
pub const BLOCK_ELEMENTS: usize = 9 << 20;

/// Rows of a gradient block: more would leave the cache, fewer would repack the input too often.
const BLOCK_ROWS: usize = 2048;

/// What large blocks are made of: rows of the largest tile of a GPU's product. By it and the two sizes above, the blocks of
/// 7B and TinyLlama fill 97 % of the tiles that an H100 computes at a time; at half of the sizes it was 48 to 97 %.
const TILE_ROWS: usize = 256;

/// Tokens that one product contracts: sums of more would not fit 32 bits ([`qft_tensor::MAX_K`]).
const CONTRACTION_TOKENS: usize = 1 << 16;

/// Rows per block for a matrix of `cols` columns.
pub fn block_rows(cols: usize) -> usize {
    let rows = (BLOCK_ELEMENTS / cols.max(1)).clamp(1, BLOCK_ROWS);
    if rows > TILE_ROWS { rows / TILE_ROWS * TILE_ROWS } else { rows }
}

/// The rows of `range` cut into blocks.
pub fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size.max(1)).map(move |start| start..(start + size.max(1)).min(end))
}

/// `y (+)= x W[rows]^T`.
///
/// Shapes: `x` `[T, K]`, `y` f32 `[T, rows.len()]`. The format of `x` decides the format of the product.
/// Errors: shape mismatch; [`Error::WrongSaved`] for INT8 activations and float weights.
pub fn forward(
    ctx: &Context<'_>,
    w: &Matrix,
    rows: Range<usize>,
    x: &Activations,
    y: &mut Buffer<f32>,
    accumulate: bool,
) -> Result<(), Error> {
    let (tokens, cols) = x.shape();
    let ops = ctx.ops;
    match (x, &w.weight) {
        (Activations::Int8(x), Weight::Hybrid(weight)) => {
            let (q, scale) = weight.dense(rows.clone())?;
            ops.gemm_i8(GemmI8 {
                orientation: Orientation::Nt,
                a: x.ints()?,
                b: q,
                row_scale: Some(x.scale.all()),
                col_scale: Some(scale),
                out: GemmOut::Floats { out: y.mat_mut(tokens, rows.len())?, accumulate },
            })?;
            if weight.protected.is_some() {
                let y = y.mat_mut(tokens, rows.len())?;
                ops.sparse_forward(SparseForward { x, weight, rows, y })?;
            }
        }
        (Activations::Float { data, .. }, Weight::Float(weight)) => ops.gemm_f32(GemmF32 {
            orientation: Orientation::Nt,
            a: data.mat(tokens, cols)?,
            b: weight.mat(w.rows(), w.cols())?.row_range(rows.clone())?,
            out: y.mat_mut(tokens, rows.len())?,
            accumulate,
        })?,
        (Activations::Float { data, .. }, Weight::Hybrid(weight)) => {
            for_decoded_blocks(ctx, weight, rows.clone(), |block, decoded| {
                let out = block.start - rows.start..block.end - rows.start;
                ctx.ops.gemm_f32(GemmF32 {
                    orientation: Orientation::Nt,
                    a: data.mat(tokens, cols)?,
                    b: decoded.mat(block.len(), cols)?,
                    out: y.mat_mut(tokens, rows.len())?.col_range(out)?,
                    accumulate,
                })?;
                Ok(())
            })?;
        }
        (Activations::Int8(_), Weight::Float(_)) => {
            return Err(Error::WrongSaved {
                layer: "linear",
                what: "INT8 activations cannot be multiplied by float weights",
            });
        }
    }
    Ok(())
}

/// `dx (+)= dy W[rows]`.
///
/// Shapes: `dy` f32 `[T, rows.len()]`, `dx` f32 `[T, K]`. `rounding` is that of the quantized `dy`; it is unused
/// in float compute.
pub fn backward_input(
    ctx: &Context<'_>,
    w: &Matrix,
    rows: Range<usize>,
    dy: &Buffer<f32>,
    rounding: Rounding,
    dx: &mut Buffer<f32>,
    accumulate: bool,
) -> Result<(), Error> {
    let (n, k, ops) = (rows.len(), w.cols(), ctx.ops);
    let tokens = dx.len() / k;
    match (&w.weight, w.compute(ctx.compute.input_gradient)) {
        (Weight::Hybrid(weight), crate::Compute::Int8) => {
            let (q, scale) = weight.dense(rows.clone())?;
            let shape = (tokens, n);
            let mut z =
                QMatrix::alloc(ops, Owner::Workspace, "output gradient", shape, ScaleAxis::Row)?;
            let x = dy.mat(tokens, n)?;
            ops.quantize_rows(QuantizeRows { x, fold: Some(scale), rounding, out: &mut z })?;
            ops.gemm_i8(GemmI8 {
                orientation: Orientation::Nn,
                a: z.ints()?,
                b: q,
                row_scale: Some(z.scale.all()),
                col_scale: None,
                out: GemmOut::Floats { out: dx.mat_mut(tokens, k)?, accumulate },
            })?;
            if weight.protected.is_some() {
                let dx = dx.mat_mut(tokens, k)?;
                ops.sparse_backward(SparseBackward { dy: &z, weight, rows, dx })?;
            }
        }
        (Weight::Float(weight), _) => ops.gemm_f32(GemmF32 {
            orientation: Orientation::Nn,
            a: dy.mat(tokens, n)?,
            b: weight.mat(w.rows(), k)?.row_range(rows)?,
            out: dx.mat_mut(tokens, k)?,
            accumulate,
        })?,
        (Weight::Hybrid(weight), crate::Compute::Float) => {
            let mut accumulate = accumulate;
            for_decoded_blocks(ctx, weight, rows.clone(), |block, decoded| {
                let part = block.start - rows.start..block.end - rows.start;
                ctx.ops.gemm_f32(GemmF32 {
                    orientation: Orientation::Nn,
                    a: dy.mat(tokens, n)?.col_range(part)?,
                    b: decoded.mat(block.len(), k)?,
                    out: dx.mat_mut(tokens, k)?,
                    accumulate,
                })?;
                accumulate = true;
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Rotates f32 `[T, K]` in place, if the matrix is stored rotated: the gradient of its input back from its basis, once all
/// products have been added, or that of an embedding's rows to it.
pub fn rotate(ctx: &Context<'_>, w: &Matrix, x: &mut Buffer<f32>) -> Result<(), Error> {
    if !w.rotated() {
        return Ok(());
    }
    let (rows, cols) = (x.len() / w.cols().max(1), w.cols());
    Ok(ctx.ops.rotate_rows(RotateRows { x: x.mat_mut(rows, cols)? })?)
}

/// Decodes a weight block by block into one temporary.
fn for_decoded_blocks(
    ctx: &Context<'_>,
    weight: &HybridMatrix,
    rows: Range<usize>,
    mut f: impl FnMut(Range<usize>, &Buffer<f32>) -> Result<(), Error>,
) -> Result<(), Error> {
    let size = block_rows(weight.cols()).min(rows.len());
    let mut decoded =
        Buffer::alloc(ctx.ops, Owner::Workspace, "decoded weight", size * weight.cols())?;
    for block in blocks(rows, size) {
        ctx.ops.decode_rows(DecodeRows {
            weight,
            rows: block.clone(),
            precision: Precision::Compute,
            out: decoded.mat_mut(block.len(), weight.cols())?,
        })?;
        f(block, &decoded)?;
    }
    Ok(())
}

/// One micro-batch's share of a weight gradient, not yet multiplied: `dW = dy^T x`.
#[derive(Debug)]
pub struct PendingGradient {
    x: Arc<Activations>,
    dy: OutputGradient,
    micro_batch: usize,
}

#[derive(Debug)]
enum OutputGradient {
    Float(Buffer<f32>),
    Int8(QMatrix),
}

impl PendingGradient {
    /// Keeps the input and the gradient of the output, `dy` f32 `[T, N]`, in the format in which `w` multiplies them.
    pub fn new(
        ctx: &Context<'_>,
        w: &Matrix,
        x: &Arc<Activations>,
        dy: &Buffer<f32>,
        n: usize,
        rounding: Rounding,
    ) -> Result<Self, Error> {
        let tokens = x.shape().0;
        let x = x.to_format(ctx.ops, w.compute(ctx.compute.weight_gradient))?;
        let dy = match &*x {
            Activations::Float { .. } => {
                let mut kept =
                    Buffer::alloc(ctx.ops, Owner::Gradients, "output gradient", tokens * n)?;
                kept.copy_from(ctx.ops, 0, dy, 0..tokens * n)?;
                OutputGradient::Float(kept)
            }
            Activations::Int8(x) => {
                let shape = (tokens, n);
                let mut u = QMatrix::alloc(
                    ctx.ops,
                    Owner::Gradients,
                    "output gradient",
                    shape,
                    ScaleAxis::Column,
                )?;
                ctx.ops.quantize_cols(QuantizeCols {
                    x: dy.mat(tokens, n)?,
                    fold: Some(x.scale.all()),
                    rounding,
                    out: &mut u,
                })?;
                OutputGradient::Int8(u)
            }
        };
        Ok(Self { x, dy, micro_batch: ctx.micro_batch })
    }

    /// The micro-batch whose share it is.
    pub(super) fn micro_batch(&self) -> usize {
        self.micro_batch
    }

    /// The tokens that it is a sum over.
    pub(super) fn tokens(&self) -> usize {
        self.x.shape().0
    }

    /// In INT8 the scale of each row of the gradient, f32 `[N]`.
    pub(super) fn scale(&self) -> Option<&Buffer<f32>> {
        match &self.dy {
            OutputGradient::Int8(u) => Some(&u.scale),
            OutputGradient::Float(_) => None,
        }
    }

    /// `dy[:, part]^T x`, `[part.len(), K]`.
    pub fn multiply(
        &self,
        ctx: &Context<'_>,
        part: Range<usize>,
        mut out: GradientOut<'_>,
    ) -> Result<(), Error> {
        let ((tokens, k), rows) = (self.x.shape(), part.len());
        match (&*self.x, &self.dy, &mut out) {
            (Activations::Int8(x), OutputGradient::Int8(u), out) => {
                // At least one product, which sets the gradient of no tokens to zero.
                for start in (0..tokens.max(1)).step_by(CONTRACTION_TOKENS) {
                    let chunk = start..(start + CONTRACTION_TOKENS).min(tokens);
                    ctx.ops.gemm_i8(GemmI8 {
                        orientation: Orientation::Tn,
                        a: u.ints()?.row_range(chunk.clone())?.col_range(part.clone())?,
                        b: x.ints()?.row_range(chunk.clone())?,
                        row_scale: Some(u.scale.span(part.clone())?),
                        col_scale: None,
                        out: out.of_product(rows, k, start > 0)?,
                    })?;
                }
                Ok(())
            }
            (
                Activations::Float { data, .. },
                OutputGradient::Float(dy),
                GradientOut::Floats(grad),
            ) => {
                let n = dy.len() / tokens.max(1);
                Ok(ctx.ops.gemm_f32(GemmF32 {
                    orientation: Orientation::Tn,
                    a: dy.mat(tokens, n)?.col_range(part)?,
                    b: data.mat(tokens, k)?,
                    out: grad.mat_mut(rows, k)?,
                    accumulate: false,
                })?)
            }
            _ => Err(Error::WrongSaved {
                layer: "linear",
                what: "input, output gradient and its sum are of different formats",
            }),
        }
    }
}

/// Where rows of a share of a weight gradient go.
#[derive(Debug)]
pub enum GradientOut<'a> {
    /// Overwritten.
    Floats(&'a mut Buffer<f32>),
    /// As in [`GemmOut::Units`], of shares in INT8.
    Units {
        /// i32 `[rows, K]`.
        sum: &'a mut Buffer<i32>,
        /// f32 `[rows]`.
        bound: Span<'a, f32>,
        /// How many shares are added.
        count: u32,
        /// Whether this one is added, or overwrites.
        accumulate: bool,
    },
}

impl GradientOut<'_> {
    /// For a product over some of the tokens; `further` is whether it is not the first.
    fn of_product(&mut self, rows: usize, k: usize, further: bool) -> Result<GemmOut<'_>, Error> {
        Ok(match self {
            Self::Floats(grad) => {
                GemmOut::Floats { out: grad.mat_mut(rows, k)?, accumulate: further }
            }
            Self::Units { sum, bound, count, accumulate } => GemmOut::Units {
                sum: sum.mat_mut(rows, k)?,
                bound: *bound,
                count: *count,
                accumulate: *accumulate || further,
            },
        })
    }
}

/// Adds the shares of all micro-batches, of which `pending` are this process's own, and hands the sum over, block of rows by
/// block of rows.
pub fn flush(
    ctx: &Context<'_>,
    w: &mut Matrix,
    pending: &mut Vec<PendingGradient>,
    outlet: &mut Outlet<'_>,
) -> Result<(), Error> {
    let size = block_rows(w.cols()).min(w.rows());
    let mut grad = Buffer::alloc(ctx.ops, Owner::Gradients, "gradient block", size * w.cols())?;
    let mut sum = ShareSum::new(ctx, w, &(0..w.rows()), size, pending)?;
    for block in blocks(0..w.rows(), size) {
        sum.hand_over(w, block, &mut grad, &[], outlet)?;
    }
    drop(sum);
    pending.clear();
    Ok(())
}

/// The rounding of the two quantized output gradients of a layer inside the network: `(for dx, for dW)`.
///
/// To nearest is unbiased enough for `dx`: both cost nothing measurable there. In `dW` the same small gradients
/// of many tokens add up, so their rounding is stochastic.
///
/// Errors: [`qft_tensor::Error::StreamRange`].
pub fn rounding(ctx: &Context<'_>, w: &Matrix) -> Result<(Rounding, Rounding), Error> {
    Ok((Rounding::Nearest, ctx.stochastic(w.id, Purpose::WeightGradient, 0)?))
}
