//! Activations on their way into a linear layer.

use crate::{ActivationsOut, Compute, Error, LayerOps};
use qft_tensor::{Buffer, Device, Owner, QMatrix, QuantizeRows, Rounding, Span};

/// The input of a linear layer, `[T, K]`: also what its backward pass needs.
#[derive(Debug)]
pub enum Activations {
    /// f32.
    Float {
        /// f32 `[T, K]`.
        data: Buffer<f32>,
        /// T.
        rows: usize,
        /// K.
        cols: usize,
    },
    /// INT8 with one scale per token, and wide channels where some stand out.
    Int8(QMatrix),
}

impl Activations {
    /// Allocates in the format that `compute` needs, contents unspecified; in INT8 with the wide channels that `wide`
    /// names, u32 [`qft_tensor::WIDE`].
    pub fn alloc(
        device: &dyn Device,
        compute: Compute,
        name: &'static str,
        (rows, cols): (usize, usize),
        wide: Span<'_, u32>,
    ) -> Result<Self, Error> {
        let owner = Owner::Activations;
        Ok(match compute {
            Compute::Float => {
                Self::Float { data: Buffer::alloc(device, owner, name, rows * cols)?, rows, cols }
            }
            Compute::Int8 => {
                Self::Int8(QMatrix::alloc_wide(device, owner, name, (rows, cols), wide)?)
            }
        })
    }

    /// Quantizes f32 `[T, K]` to nearest, with these wide channels.
    pub fn quantize(
        ops: &dyn LayerOps,
        name: &'static str,
        x: &Buffer<f32>,
        (rows, cols): (usize, usize),
        wide: Span<'_, u32>,
    ) -> Result<Self, Error> {
        let mut out = QMatrix::alloc_wide(ops, Owner::Activations, name, (rows, cols), wide)?;
        ops.quantize_rows(QuantizeRows {
            x: x.mat(rows, cols)?,
            fold: None,
            rounding: Rounding::Nearest,
            out: &mut out,
        })?;
        Ok(Self::Int8(out))
    }

    /// T and K.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Float { rows, cols, .. } => (*rows, *cols),
            Self::Int8(x) => (x.rows(), x.cols()),
        }
    }

    /// For an operation to write to.
    pub fn out(&mut self) -> ActivationsOut<'_> {
        match self {
            Self::Float { data, .. } => ActivationsOut::Float(data),
            Self::Int8(x) => ActivationsOut::Int8(x),
        }
    }
}
