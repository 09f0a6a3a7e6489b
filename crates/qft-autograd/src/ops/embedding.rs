//! Lookup of embeddings, and of other rows by number.

use super::expect;
use crate::Error;
use qft_quant::HybridMatrix;
use qft_tensor::{Buffer, MatMut};
use std::ops::Range;

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

impl EmbedBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("embed_backward", self.rows.len(), self.grad.rows())?;
        expect("embed_backward", self.ids.len() * self.grad.cols(), self.dy.len())
    }
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

impl GatherRows<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("gather_rows", self.index.len() * self.channels, self.out.len())
    }
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

impl ScatterRows<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect("scatter_rows", self.index.len() * self.channels, self.src.len())
    }
}
