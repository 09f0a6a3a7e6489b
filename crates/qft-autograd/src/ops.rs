//! Layer operations other than products: their descriptions, and the trait a device implements.
//!
//! Activations are f32 matrices `[T, width]`, one row per token; documents lie end to end ([`Segments`]).
//! Notation: T tokens, C channels, H query heads, G key/value heads (H is a multiple of G), D head size,
//! F feed-forward size, V vocabulary.

mod attention;
mod bias;
mod convert;
mod embedding;
mod loss;
mod rmsnorm;
mod rope;
mod scaled_add;
mod swiglu;
mod unit_sum;

pub use attention::{
    AttentionBackward, AttentionDecode, AttentionForward, Heads, Operands, Segments,
};
pub use bias::{AddBias, BiasGradient};
pub use convert::{FromBf16, ToBf16};
pub use embedding::{EmbedBackward, EmbedForward, GatherRows, ScatterRows, TableRef};
pub use loss::{LossGradient, LossStats};
pub use rmsnorm::{RmsNormBackward, RmsNormForward};
pub use rope::Rope;
pub use scaled_add::ScaledAdd;
pub use swiglu::{SwigluBackward, SwigluForward};
pub use unit_sum::{FromUnits, RaiseBound};

use crate::Error;
use qft_quant::HybridOps;
use qft_tensor::{Buffer, QMatrix, ScaleAxis};

/// Where an operation writes activations that a linear layer will read.
#[derive(Debug)]
pub enum ActivationsOut<'a> {
    /// As f32 `[T, width]`.
    Float(&'a mut Buffer<f32>),
    /// Quantized to nearest with a scale per token, rotated before if it is to be, as [`qft_tensor::QuantizeRows`] does.
    Int8(&'a mut QMatrix),
}

impl ActivationsOut<'_> {
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

fn expect(op: &'static str, want: usize, got: usize) -> Result<(), Error> {
    if want == got { Ok(()) } else { Err(Error::shape(op, want, got)) }
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
    /// See [`AddBias`].
    fn add_bias(&self, op: AddBias<'_>) -> Result<(), Error>;
    /// See [`BiasGradient`].
    fn bias_gradient(&self, op: BiasGradient<'_>) -> Result<(), Error>;
    /// See [`ScaledAdd`].
    fn scaled_add(&self, op: ScaledAdd<'_>) -> Result<(), Error>;
    /// See [`RaiseBound`].
    fn raise_bound(&self, op: RaiseBound<'_>) -> Result<(), Error>;
    /// See [`FromUnits`].
    #[allow(clippy::wrong_self_convention)] // Converts its operands, not the device.
    fn from_units(&self, op: FromUnits<'_>) -> Result<(), Error>;
    /// See [`ToBf16`].
    fn to_bf16(&self, op: ToBf16<'_>) -> Result<(), Error>;
    /// See [`FromBf16`].
    #[allow(clippy::wrong_self_convention)] // Converts its operands, not the device.
    fn from_bf16(&self, op: FromBf16<'_>) -> Result<(), Error>;
}
