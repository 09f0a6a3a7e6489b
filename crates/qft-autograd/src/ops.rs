//! Layer operations other than products: their descriptions, and the trait a device implements.
//!
//! Activations are f32 matrices `[T, width]`, one row per token; documents lie end to end ([`Segments`]).
//! Notation: T tokens, C channels, H query heads, G key/value heads (H is a multiple of G), D head size,
//! F feed-forward size, V vocabulary.

use crate::{Compute, Error};
use half::bf16;
use qft_quant::{HybridMatrix, HybridOps};
use qft_tensor::{Buffer, MatMut, QMatrix, ScaleAxis};
use std::ops::Range;

/// Where documents begin in a batch, and `T` at the end: `[documents + 1]`, first 0, rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments(Vec<usize>);

impl Segments {
    /// Checks that the borders rise strictly from 0.
    ///
    /// Errors: shape mismatch.
    pub fn new(borders: Vec<usize>) -> Result<Self, Error> {
        if borders.first() != Some(&0) || borders.windows(2).any(|w| w[0] >= w[1]) {
            return Err(Error::shape("segments", "borders rising from 0", format!("{borders:?}")));
        }
        Ok(Self(borders))
    }

    /// The borders.
    pub fn borders(&self) -> &[usize] {
        &self.0
    }

    /// Number of tokens T.
    pub fn tokens(&self) -> usize {
        self.0[self.0.len() - 1]
    }
}

/// Where an operation writes activations that a linear layer will read.
#[derive(Debug)]
pub enum RowsOut<'a> {
    /// As f32 `[T, width]`.
    Float(&'a mut Buffer<f32>),
    /// Quantized to nearest with a scale per token, and with wide channels if it has places for them, as
    /// [`qft_tensor::QuantizeRows`] does.
    Int8(&'a mut QMatrix),
}

impl RowsOut<'_> {
    fn check(&self, op: &'static str, rows: usize, cols: usize) -> Result<(), Error> {
        match self {
            Self::Float(out) => expect(op, rows * cols, out.len()),
            Self::Int8(out) if out.axis() != ScaleAxis::Row => {
                Err(Error::shape(op, "a scale per row", format_args!("{:?}", out.axis())))
            }
            Self::Int8(out) if (out.rows(), out.cols()) != (rows, cols) => Err(Error::shape(
                op,
                format_args!("[{rows}, {cols}]"),
                format_args!("[{}, {}]", out.rows(), out.cols()),
            )),
            Self::Int8(_) => Ok(()),
        }
    }
}

/// The table that an embedding reads.
#[derive(Debug, Clone, Copy)]
pub enum TableRef<'a> {
    /// f32 `[V, C]`.
    Float(&'a Buffer<f32>),
    /// Hybrid `[V, C]`, read at full precision.
    Hybrid(&'a HybridMatrix),
}

/// `out[t] = table[ids[t]]`.
///
/// Shapes: `ids` u32 `[T]`, `out` f32 `[T, C]`. Errors: [`Error::IndexOutOfRange`].
#[derive(Debug)]
pub struct EmbedForward<'a> {
    /// Token ids.
    pub ids: &'a Buffer<u32>,
    /// The table.
    pub table: TableRef<'a>,
    /// Its rows V.
    pub vocab: usize,
    /// Its columns C.
    pub channels: usize,
    /// The result.
    pub out: &'a mut Buffer<f32>,
}

/// `grad[v] += sum over t with ids[t] = v of dy[t]`, for `v` in `rows`.
///
/// Shapes: `dy` f32 `[T, C]`, `grad` f32 `[rows.len(), C]`. Numerics: f32 sums in order of t.
#[derive(Debug)]
pub struct EmbedBackward<'a> {
    /// Token ids `[T]`.
    pub ids: &'a Buffer<u32>,
    /// Gradient of the output.
    pub dy: &'a Buffer<f32>,
    /// Rows of the table.
    pub rows: Range<usize>,
    /// Added to.
    pub grad: MatMut<'a, f32>,
}

/// `out[i] = src[index[i]]`, rows of f32 `[T, C]`.
///
/// Shapes: `index` u32 `[M]`, `out` f32 `[M, C]`. Errors: [`Error::IndexOutOfRange`].
#[derive(Debug)]
pub struct GatherRows<'a> {
    /// f32 `[T, C]`.
    pub src: &'a Buffer<f32>,
    /// Row numbers.
    pub index: &'a Buffer<u32>,
    /// C.
    pub channels: usize,
    /// The result.
    pub out: &'a mut Buffer<f32>,
}

/// `dst[index[i]] = src[i]`, all other rows 0. The indices must differ.
///
/// Shapes: `src` f32 `[M, C]`, `index` u32 `[M]`, `dst` f32 `[T, C]`. Errors: [`Error::IndexOutOfRange`].
#[derive(Debug)]
pub struct ScatterRows<'a> {
    /// f32 `[M, C]`.
    pub src: &'a Buffer<f32>,
    /// Row numbers.
    pub index: &'a Buffer<u32>,
    /// C.
    pub channels: usize,
    /// The result.
    pub dst: &'a mut Buffer<f32>,
}

/// RMSNorm (Zhang and Sennrich, arXiv 1910.07467): `out = x * rstd * gain`, `rstd = 1 / sqrt(mean(x^2) + eps)`.
///
/// Shapes: `x` f32 `[T, C]`, `gain` f32 `[C]`, `rstd` f32 `[T]`.
/// Numerics: the mean in f32 over 16 lanes, combined in a fixed order.
#[derive(Debug)]
pub struct RmsNormForward<'a> {
    /// Input.
    pub x: &'a Buffer<f32>,
    /// Gain.
    pub gain: &'a Buffer<f32>,
    /// Added to the mean square.
    pub eps: f32,
    /// Saved for the backward pass.
    pub rstd: &'a mut Buffer<f32>,
    /// The result.
    pub out: RowsOut<'a>,
}

impl RmsNormForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "rmsnorm_forward";
        let (rows, cols) = (self.rstd.len(), self.gain.len());
        expect(OP, rows * cols, self.x.len())?;
        self.out.check(OP, rows, cols)
    }
}

/// Backward of RMSNorm: adds to `dx` and to `dgain`.
///
/// `dx += rstd * (dy * gain - xhat * mean(dy * gain * xhat))`, `dgain += sum over t of dy * xhat`, with
/// `xhat = x * rstd`. Shapes as forward; `dy`, `dx` f32 `[T, C]`, `dgain` f32 `[C]`.
/// Numerics: `dgain` is summed over fixed blocks of 64 tokens, then over blocks in order.
#[derive(Debug)]
pub struct RmsNormBackward<'a> {
    /// Input of the forward pass.
    pub x: &'a Buffer<f32>,
    /// Gain.
    pub gain: &'a Buffer<f32>,
    /// From the forward pass.
    pub rstd: &'a Buffer<f32>,
    /// Gradient of the output.
    pub dy: &'a Buffer<f32>,
    /// Added to.
    pub dx: &'a mut Buffer<f32>,
    /// Added to.
    pub dgain: &'a mut Buffer<f32>,
}

impl RmsNormBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "rmsnorm_backward";
        let (rows, cols) = (self.rstd.len(), self.gain.len());
        for len in [self.x.len(), self.dy.len(), self.dx.len()] {
            expect(OP, rows * cols, len)?;
        }
        expect(OP, cols, self.dgain.len())
    }
}

/// Rotary embedding (Su et al., arXiv 2104.09864) in the half-split order of Hugging Face, in place.
///
/// For `i < D / 2` and angle `a = position * inv_freq[i]`:
/// `(x[i], x[i + D/2]) = (x[i] cos a - x[i + D/2] sin a, x[i + D/2] cos a + x[i] sin a)`; with `inverse` the
/// angle is negated, which is the backward pass.
/// Shapes: `x` f32 `[T, heads * D]`, `positions` u32 `[T]`, `inv_freq` f32 `[D / 2]`.
#[derive(Debug)]
pub struct Rope<'a> {
    /// Rotated in place.
    pub x: &'a mut Buffer<f32>,
    /// Position of each token in its document.
    pub positions: &'a Buffer<u32>,
    /// Inverse frequencies.
    pub inv_freq: &'a Buffer<f32>,
    /// Heads in a row.
    pub heads: usize,
    /// Rotate backwards.
    pub inverse: bool,
}

impl Rope<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("rope", self.positions.len() * self.heads * self.inv_freq.len() * 2, self.x.len())
    }
}

/// Head layout of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads H.
    pub query: usize,
    /// Key/value heads G; H is a multiple.
    pub key_value: usize,
    /// Head size D.
    pub size: usize,
}

/// What the operands of attention's products are rounded to; sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// Nothing: the reference.
    F32,
    /// The nearest bf16. A GPU leaves them in f32 at sizes that it has no kernel for.
    Bf16,
}

impl Operands {
    /// Head sizes whose operands are rounded in training: those of the tensor-core kernels.
    pub const BF16_SIZES: [usize; 5] = [32, 64, 80, 96, 128];

    /// What heads of `size` use beside linear layers that compute in this format: the same on every device.
    pub fn beside(compute: Compute, size: usize) -> Self {
        match compute {
            Compute::Int8 if Self::BF16_SIZES.contains(&size) => Self::Bf16,
            _ => Self::F32,
        }
    }
}

/// Causal attention within each segment, `softmax(q k^T / sqrt(D)) v`, never materialising `[T, T]`.
///
/// Shapes: `q`, `out` f32 `[T, H * D]`; `k`, `v` f32 `[T, G * D]`; `lse` f32 `[T, H]` receives the log-sum-exp
/// of the scaled scores. Query head h reads key/value head `h / (H / G)`.
/// Numerics: online softmax over key blocks of a fixed size, in f32 but for what `operands` says.
#[derive(Debug)]
pub struct AttentionForward<'a> {
    /// Queries.
    pub q: &'a Buffer<f32>,
    /// Keys.
    pub k: &'a Buffer<f32>,
    /// Values.
    pub v: &'a Buffer<f32>,
    /// Document borders.
    pub segments: &'a Segments,
    /// Head layout.
    pub heads: Heads,
    /// What products read.
    pub operands: Operands,
    /// Saved for the backward pass.
    pub lse: &'a mut Buffer<f32>,
    /// The result.
    pub out: &'a mut Buffer<f32>,
}

impl AttentionForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "attention_forward";
        let (t, Heads { query, key_value, size }) = (self.segments.tokens(), self.heads);
        expect(OP, t * query * size, self.q.len())?;
        expect(OP, t * query * size, self.out.len())?;
        expect(OP, t * key_value * size, self.k.len())?;
        expect(OP, t * key_value * size, self.v.len())?;
        expect(OP, t * query, self.lse.len())
    }
}

/// Backward of [`AttentionForward`]: overwrites `dq`, `dk`, `dv`.
///
/// The probabilities are recomputed from `lse`. Numerics: f32, sums over queries and over the heads of a
/// group in a fixed order.
#[derive(Debug)]
pub struct AttentionBackward<'a> {
    /// Queries.
    pub q: &'a Buffer<f32>,
    /// Keys.
    pub k: &'a Buffer<f32>,
    /// Values.
    pub v: &'a Buffer<f32>,
    /// Output of the forward pass.
    pub out: &'a Buffer<f32>,
    /// From the forward pass.
    pub lse: &'a Buffer<f32>,
    /// Gradient of the output.
    pub dout: &'a Buffer<f32>,
    /// Document borders.
    pub segments: &'a Segments,
    /// Head layout.
    pub heads: Heads,
    /// As in the forward pass.
    pub operands: Operands,
    /// Gradient of the queries.
    pub dq: &'a mut Buffer<f32>,
    /// Gradient of the keys.
    pub dk: &'a mut Buffer<f32>,
    /// Gradient of the values.
    pub dv: &'a mut Buffer<f32>,
}

impl AttentionBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "attention_backward";
        let (t, Heads { query, key_value, size }) = (self.segments.tokens(), self.heads);
        for len in [self.q.len(), self.out.len(), self.dout.len(), self.dq.len()] {
            expect(OP, t * query * size, len)?;
        }
        for len in [self.k.len(), self.v.len(), self.dk.len(), self.dv.len()] {
            expect(OP, t * key_value * size, len)?;
        }
        expect(OP, t * query, self.lse.len())
    }
}

/// Attention of new tokens to a cache that already holds their keys and values.
///
/// Query `i` reads cache rows `0..past + i + 1`. Shapes: `q`, `out` f32 `[n, H * D]`; `k`, `v` f32
/// `[capacity, G * D]` with at least `past + n` rows filled.
#[derive(Debug)]
pub struct AttentionDecode<'a> {
    /// Queries.
    pub q: &'a Buffer<f32>,
    /// Cached keys.
    pub k: &'a Buffer<f32>,
    /// Cached values.
    pub v: &'a Buffer<f32>,
    /// Rows in the cache before these tokens.
    pub past: usize,
    /// Head layout.
    pub heads: Heads,
    /// The result.
    pub out: &'a mut Buffer<f32>,
}

impl AttentionDecode<'_> {
    /// Checks all shapes; the number of new tokens.
    pub fn check(&self) -> Result<usize, Error> {
        const OP: &str = "attention_decode";
        let Heads { query, key_value, size } = self.heads;
        let n = self.q.len() / (query * size).max(1);
        expect(OP, n * query * size, self.q.len())?;
        expect(OP, self.q.len(), self.out.len())?;
        expect(OP, self.k.len(), self.v.len())?;
        let need = (self.past + n) * key_value * size;
        if self.k.len() < need {
            return Err(Error::shape(OP, format_args!("a cache of at least {need}"), self.k.len()));
        }
        Ok(n)
    }
}

/// SwiGLU (Shazeer, arXiv 2002.05202): `out = silu(gate) * up`.
///
/// Shapes: all `[T, F]`; `rows` is T.
#[derive(Debug)]
pub struct SwigluForward<'a> {
    /// Gate.
    pub gate: &'a Buffer<f32>,
    /// Up.
    pub up: &'a Buffer<f32>,
    /// T.
    pub rows: usize,
    /// The result.
    pub out: RowsOut<'a>,
}

impl SwigluForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "swiglu_forward";
        expect(OP, self.gate.len(), self.up.len())?;
        let cols = self.gate.len() / self.rows.max(1);
        expect(OP, self.rows * cols, self.gate.len())?;
        self.out.check(OP, self.rows, cols)
    }
}

/// Backward of SwiGLU, in place: `gate` becomes its gradient, `up` becomes its gradient.
///
/// Shapes: all f32 `[T, F]`.
#[derive(Debug)]
pub struct SwigluBackward<'a> {
    /// Gradient of the output.
    pub dy: &'a Buffer<f32>,
    /// Gate in, its gradient out.
    pub gate: &'a mut Buffer<f32>,
    /// Up in, its gradient out.
    pub up: &'a mut Buffer<f32>,
}

impl SwigluBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("swiglu_backward", self.dy.len(), self.gate.len())?;
        expect("swiglu_backward", self.dy.len(), self.up.len())
    }
}

/// Running log-sum-exp over blocks of the vocabulary.
///
/// For the columns `start..start + cols` of the logits: updates `max[m]` and `sum[m]` so that
/// `max + ln(sum)` is the log-sum-exp of all columns seen, and keeps the target's logit when it passes.
/// Shapes: `logits` f32 `[M, cols]`; `targets` u32 `[M]`; `max`, `sum`, `target_logit` f32 `[M]`. With
/// `start == 0` the running values are set, else updated.
#[derive(Debug)]
pub struct LossStats<'a> {
    /// Logits of this block.
    pub logits: &'a Buffer<f32>,
    /// First column of the block.
    pub start: usize,
    /// Columns of the block.
    pub cols: usize,
    /// Target ids.
    pub targets: &'a Buffer<u32>,
    /// Running maximum.
    pub max: &'a mut Buffer<f32>,
    /// Running sum of `exp(logit - max)`.
    pub sum: &'a mut Buffer<f32>,
    /// Logit of the target.
    pub target_logit: &'a mut Buffer<f32>,
}

impl LossStats<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        let m = self.targets.len();
        if self.logits.len() < m * self.cols {
            return Err(Error::shape("loss_stats", m * self.cols, self.logits.len()));
        }
        for len in [self.max.len(), self.sum.len(), self.target_logit.len()] {
            expect("loss_stats", m, len)?;
        }
        Ok(())
    }
}

/// Gradient of the mean cross-entropy for a block of the vocabulary, in place:
/// `logits = (exp(logit - max) / sum - [column == target]) * weight`.
///
/// Shapes as [`LossStats`], after its last block.
#[derive(Debug)]
pub struct LossGradient<'a> {
    /// Logits in, their gradient out.
    pub logits: &'a mut Buffer<f32>,
    /// First column of the block.
    pub start: usize,
    /// Columns of the block.
    pub cols: usize,
    /// Target ids.
    pub targets: &'a Buffer<u32>,
    /// Final maximum.
    pub max: &'a Buffer<f32>,
    /// Final sum.
    pub sum: &'a Buffer<f32>,
    /// One over the number of targets of the whole batch.
    pub weight: f32,
}

impl LossGradient<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        let m = self.targets.len();
        if self.logits.len() < m * self.cols {
            return Err(Error::shape("loss_gradient", m * self.cols, self.logits.len()));
        }
        expect("loss_gradient", m, self.max.len())?;
        expect("loss_gradient", m, self.sum.len())
    }
}

/// Rounds to bf16, nearest even.
#[derive(Debug)]
pub struct ToBf16<'a> {
    /// f32.
    pub src: &'a Buffer<f32>,
    /// bf16, same length.
    pub dst: &'a mut Buffer<bf16>,
}

/// Widens bf16, exactly.
#[derive(Debug)]
pub struct FromBf16<'a> {
    /// bf16.
    pub src: &'a Buffer<bf16>,
    /// f32, same length.
    pub dst: &'a mut Buffer<f32>,
}

fn expect(op: &'static str, want: usize, got: usize) -> Result<(), Error> {
    if want == got { Ok(()) } else { Err(Error::shape(op, want, got)) }
}

impl EmbedForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "embed_forward";
        match self.table {
            TableRef::Float(table) => expect(OP, self.vocab * self.channels, table.len())?,
            TableRef::Hybrid(table) => {
                expect(OP, self.vocab, table.rows())?;
                expect(OP, self.channels, table.cols())?;
            }
        }
        expect(OP, self.ids.len() * self.channels, self.out.len())
    }
}

impl EmbedBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("embed_backward", self.rows.len(), self.grad.rows())?;
        expect("embed_backward", self.ids.len() * self.grad.cols(), self.dy.len())
    }
}

impl GatherRows<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("gather_rows", self.index.len() * self.channels, self.out.len())
    }
}

impl ScatterRows<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("scatter_rows", self.index.len() * self.channels, self.src.len())
    }
}

impl ToBf16<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("to_bf16", self.src.len(), self.dst.len())
    }
}

impl FromBf16<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("from_bf16", self.src.len(), self.dst.len())
    }
}

/// Layer operations of a device.
pub trait LayerOps: HybridOps {
    /// See [`EmbedForward`].
    fn embed_forward(&self, op: EmbedForward<'_>) -> Result<(), Error>;
    /// See [`EmbedBackward`].
    fn embed_backward(&self, op: EmbedBackward<'_>) -> Result<(), Error>;
    /// See [`GatherRows`].
    fn gather_rows(&self, op: GatherRows<'_>) -> Result<(), Error>;
    /// See [`ScatterRows`].
    fn scatter_rows(&self, op: ScatterRows<'_>) -> Result<(), Error>;
    /// See [`RmsNormForward`].
    fn rmsnorm_forward(&self, op: RmsNormForward<'_>) -> Result<(), Error>;
    /// See [`RmsNormBackward`].
    fn rmsnorm_backward(&self, op: RmsNormBackward<'_>) -> Result<(), Error>;
    /// See [`Rope`].
    fn rope(&self, op: Rope<'_>) -> Result<(), Error>;
    /// See [`AttentionForward`].
    fn attention_forward(&self, op: AttentionForward<'_>) -> Result<(), Error>;
    /// See [`AttentionBackward`].
    fn attention_backward(&self, op: AttentionBackward<'_>) -> Result<(), Error>;
    /// See [`AttentionDecode`].
    fn attention_decode(&self, op: AttentionDecode<'_>) -> Result<(), Error>;
    /// See [`SwigluForward`].
    fn swiglu_forward(&self, op: SwigluForward<'_>) -> Result<(), Error>;
    /// See [`SwigluBackward`].
    fn swiglu_backward(&self, op: SwigluBackward<'_>) -> Result<(), Error>;
    /// See [`LossStats`].
    fn loss_stats(&self, op: LossStats<'_>) -> Result<(), Error>;
    /// See [`LossGradient`].
    fn loss_gradient(&self, op: LossGradient<'_>) -> Result<(), Error>;
    /// See [`ToBf16`].
    fn to_bf16(&self, op: ToBf16<'_>) -> Result<(), Error>;
    /// See [`FromBf16`].
    #[allow(clippy::wrong_self_convention)] // Converts its operands, not the device.
    fn from_bf16(&self, op: FromBf16<'_>) -> Result<(), Error>;
}
