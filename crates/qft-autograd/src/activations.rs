//! Activations on their way into a linear layer.

use crate::{ActivationsOut, Compute, Error, InputFormat, LayerOps};
use qft_tensor::{
    Buffer, Dequantize, Device, Owner, QMatrix, QuantizeRows, RotateRows, Rounding, ScaleAxis,
};
use std::sync::Arc;

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
    /// INT8 with one scale per token.
    Int8(QMatrix),
}

fn int8(
    device: &dyn Device,
    name: &'static str,
    shape: (usize, usize),
    rotated: bool,
) -> Result<QMatrix, qft_tensor::Error> {
    let matrix = QMatrix::alloc(device, Owner::Activations, name, shape, ScaleAxis::Row)?;
    Ok(matrix.with_rotation(rotated))
}

impl Activations {
    /// Allocates in this format, contents unspecified.
    pub fn alloc(
        device: &dyn Device,
        format: InputFormat,
        name: &'static str,
        (rows, cols): (usize, usize),
    ) -> Result<Self, Error> {
        let owner = Owner::Activations;
        Ok(match format.compute {
            Compute::Float => {
                Self::Float { data: Buffer::alloc(device, owner, name, rows * cols)?, rows, cols }
            }
            Compute::Int8 => Self::Int8(int8(device, name, (rows, cols), format.rotated)?),
        })
    }

    /// Quantizes f32 `[T, K]` to nearest.
    pub fn quantize(
        ops: &dyn LayerOps,
        name: &'static str,
        x: &Buffer<f32>,
        (rows, cols): (usize, usize),
        rotated: bool,
    ) -> Result<Self, Error> {
        let mut out = int8(ops, name, (rows, cols), rotated)?;
        ops.quantize_rows(QuantizeRows {
            x: x.mat(rows, cols)?,
            fold: None,
            rounding: Rounding::Nearest,
            out: &mut out,
        })?;
        Ok(Self::Int8(out))
    }

    /// Of f32 `[T, K]`, which stays as it is: quantized to nearest or copied, and rotated if `format` says so.
    pub fn of(
        ops: &dyn LayerOps,
        format: InputFormat,
        name: &'static str,
        x: &Buffer<f32>,
        (rows, cols): (usize, usize),
    ) -> Result<Self, Error> {
        if format.compute == Compute::Int8 {
            return Self::quantize(ops, name, x, (rows, cols), format.rotated);
        }
        let mut data = Buffer::alloc(ops, Owner::Activations, name, x.len())?;
        data.copy_from(ops, 0, x, 0..x.len())?;
        let mut copy = Self::Float { data, rows, cols };
        copy.rotate_floats(ops, format)?;
        Ok(copy)
    }

    /// Rotates what an operation has written as floats, if `format` says so; INT8 rows are rotated as they are quantized.
    pub fn rotate_floats(&mut self, ops: &dyn LayerOps, format: InputFormat) -> Result<(), Error> {
        match self {
            Self::Float { data, rows, cols } if format.rotated => {
                Ok(ops.rotate_rows(RotateRows { x: data.mat_mut(*rows, *cols)? })?)
            }
            _ => Ok(()),
        }
    }

    /// The same in this format: itself, or a copy if it is in the other one.
    pub fn to_format(
        self: &Arc<Self>,
        ops: &dyn LayerOps,
        compute: Compute,
    ) -> Result<Arc<Self>, Error> {
        Ok(match (&**self, compute) {
            (Self::Float { data, rows, cols }, Compute::Int8) => {
                // They are rotated already, if they are to be.
                Arc::new(Self::quantize(ops, "input in INT8", data, (*rows, *cols), false)?)
            }
            (Self::Int8(x), Compute::Float) => {
                let (rows, cols) = (x.rows(), x.cols());
                let name = "input in float";
                let mut data = Buffer::alloc(ops, Owner::Activations, name, rows * cols)?;
                ops.dequantize(Dequantize { x, out: data.mat_mut(rows, cols)? })?;
                Arc::new(Self::Float { data, rows, cols })
            }
            _ => Arc::clone(self),
        })
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
