//! Sums that have no order: floats as whole numbers of a unit that is known before the first of them.

use super::expect;
use crate::Error;
use qft_tensor::{Buffer, Span};

/// Raises each bound to `factor * scale`, if that is larger or not a number.
///
/// Shapes: both f32 `[N]`, none negative. Numerics: one product and a comparison.
#[derive(Debug)]
pub struct RaiseBound<'a> {
    /// What is compared.
    pub scale: &'a Buffer<f32>,
    /// Its factor.
    pub factor: f32,
    /// Raised.
    pub bound: &'a mut Buffer<f32>,
}

impl RaiseBound<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("raise_bound", self.bound.len(), self.scale.len())
    }
}

/// The floats that sums of [`GemmOut::Units`](qft_tensor::GemmOut::Units) stand for: `values = sum * unit`. Where the bound is
/// not finite, they are NaN.
///
/// Shapes: `values` f32 and `sum` i32 begin with `[rows, K]`, `bound` f32 `[rows]`.
#[derive(Debug)]
pub struct FromUnits<'a> {
    /// The whole numbers.
    pub sum: &'a Buffer<i32>,
    /// As they were added.
    pub bound: Span<'a, f32>,
    /// As they were added.
    pub count: u32,
    /// K.
    pub cols: usize,
    /// The floats.
    pub values: &'a mut Buffer<f32>,
}

impl FromUnits<'_> {
    /// Checks all shapes; the number of elements.
    pub fn check(&self) -> Result<usize, Error> {
        let (need, values, sum) = (self.bound.len() * self.cols, self.values.len(), self.sum.len());
        if need <= values.min(sum) {
            return Ok(need);
        }
        let (expected, got) = (format_args!("at least {need}"), format_args!("{values}, {sum}"));
        Err(Error::shape("from_units", expected, got))
    }
}
