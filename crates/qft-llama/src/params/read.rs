//! The values of a model's parameters.

use super::Param;
use crate::error::Error;
use qft_autograd::{Matrix, Vector, Weight};
use qft_quant::{DecodeRows, HybridOps, Precision};
use qft_tensor::{Buffer, Owner, RotateRows};
use std::ops::Range;

impl<'a> Param<&'a Matrix, &'a Vector> {
    /// Its name in the files of the model.
    pub fn name(self) -> &'a str {
        match self {
            Self::Matrix(matrix) => &matrix.name,
            Self::Vector(vector) => &vector.name,
        }
    }

    /// Rows `rows` in full precision, as f32 on the host: for export. A vector is one row.
    ///
    /// Errors: those of the device.
    pub fn read_rows(
        self,
        ops: &dyn HybridOps,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        match self {
            Self::Vector(vector) => vector.data.download(ops, 0, out)?,
            Self::Matrix(matrix) => match &matrix.weight {
                Weight::Float(data) => data.download(ops, rows.start * matrix.cols(), out)?,
                Weight::Hybrid(weight) => {
                    let (n, k) = (rows.len(), weight.cols());
                    let mut decoded = Buffer::alloc(ops, Owner::Loading, "decoded rows", n * k)?;
                    ops.decode_rows(DecodeRows {
                        weight,
                        rows,
                        precision: Precision::Full,
                        out: decoded.mat_mut(n, k)?,
                    })?;
                    if matrix.rotated() {
                        ops.rotate_rows(RotateRows { x: decoded.mat_mut(n, k)? })?;
                    }
                    decoded.download(ops, 0, out)?;
                }
            },
        }
        Ok(())
    }
}
