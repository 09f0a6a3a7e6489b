//! Updates that only check their shapes.

use crate::{Error, FloatUpdate, MatrixUpdate, OptimOps, SquareSum};
use qft_tensor::Planner;

impl OptimOps for Planner {
    fn matrix_update(&self, op: MatrixUpdate<'_>) -> Result<(), Error> {
        op.check()
    }

    fn float_update(&self, op: FloatUpdate<'_>) -> Result<(), Error> {
        op.check()
    }

    fn square_sum(&self, op: SquareSum<'_>) -> Result<(), Error> {
        op.check()
    }
}
