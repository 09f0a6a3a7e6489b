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

/// Rows of floats as whole numbers of each row's unit, [`qft_tensor::numeric::sum_unit`] of its bound and the count:
/// `sum (+)= nearest(values / unit)`, ties to even; what is not a number is 0.
///
/// Shapes: `values` f32 and `sum` i32 begin with `[rows, K]`, `bound` f32 `[rows]`. As many as `count` rows of magnitudes up to
/// their bound can be added without leaving the range of `i32`.
#[derive(Debug)]
pub struct AddUnits<'a> {
    /// The floats.
    pub values: &'a Buffer<f32>,
    /// The largest magnitude that any of them can have, by row.
    pub bound: Span<'a, f32>,
    /// How many are added.
    pub count: u32,
    /// K.
    pub cols: usize,
    /// The whole numbers.
    pub sum: &'a mut Buffer<i32>,
    /// Whether to add to them.
    pub accumulate: bool,
}

impl AddUnits<'_> {
    /// Checks all shapes; the number of elements.
    pub fn check(&self) -> Result<usize, Error> {
        elements("add_units", self.bound.len() * self.cols, self.values.len(), self.sum.len())
    }
}

/// The floats that sums of [`AddUnits`] stand for: `values = sum * unit`. Where the bound is not finite, they are NaN.
///
/// Shapes: as there.
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
        elements("from_units", self.bound.len() * self.cols, self.values.len(), self.sum.len())
    }
}

fn elements(op: &'static str, need: usize, values: usize, sum: usize) -> Result<usize, Error> {
    if need <= values.min(sum) {
        return Ok(need);
    }
    Err(Error::shape(op, format_args!("at least {need}"), format_args!("{values}, {sum}")))
}
