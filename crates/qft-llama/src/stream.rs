//! The residual stream between blocks, and the format in which the backward pass keeps it.

use half::bf16;
use qft_autograd::ops::{FromBf16, ToBf16};
use qft_autograd::{Error, LayerOps};
use qft_tensor::{Buffer, Owner};
use serde::{Deserialize, Serialize};

/// The format of the residual stream between blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamFormat {
    /// f32: for the float reference.
    F32,
    /// Rounded to bf16 at each block's border: halves what the backward pass keeps.
    Bf16,
}

/// The residual stream as it is kept for the backward pass.
#[derive(Debug)]
pub enum Stream {
    /// f32 `[T, C]`.
    F32(Buffer<f32>),
    /// bf16 `[T, C]`.
    Bf16(Buffer<bf16>),
}

impl Stream {
    /// Rounds `x` in place to the format, so that what is kept is what goes on; returns a copy.
    pub(crate) fn round(
        ops: &dyn LayerOps,
        format: StreamFormat,
        x: &mut Buffer<f32>,
    ) -> Result<Self, Error> {
        match format {
            StreamFormat::F32 => {
                let mut copy = Buffer::alloc(ops, Owner::Activations, "block input", x.len())?;
                copy.copy_from(ops, 0, x, 0..x.len())?;
                Ok(Self::F32(copy))
            }
            StreamFormat::Bf16 => {
                let mut half = Buffer::alloc(ops, Owner::Activations, "block input", x.len())?;
                ops.to_bf16(ToBf16 { src: x, dst: &mut half })?;
                ops.from_bf16(FromBf16 { src: &half, dst: x })?;
                Ok(Self::Bf16(half))
            }
        }
    }

    /// The values as f32, in a buffer of their own.
    pub(crate) fn to_float(&self, ops: &dyn LayerOps) -> Result<Buffer<f32>, Error> {
        let len = match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
        };
        let mut out = Buffer::alloc(ops, Owner::Activations, "residual stream", len)?;
        match self {
            Self::F32(x) => out.copy_from(ops, 0, x, 0..len)?,
            Self::Bf16(half) => ops.from_bf16(FromBf16 { src: half, dst: &mut out })?,
        }
        Ok(out)
    }

    /// The values as f32.
    pub(crate) fn into_float(self, ops: &dyn LayerOps) -> Result<Buffer<f32>, Error> {
        match self {
            Self::F32(x) => Ok(x),
            half @ Self::Bf16(_) => half.to_float(ops),
        }
    }
}
