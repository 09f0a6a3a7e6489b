//! Operations on hybrid matrices, and the trait a device implements.

use crate::{Error, HybridMatrix};
use qft_tensor::{MatMut, QMatrix, QuantizeOps, ScaleAxis};
use std::ops::Range;

/// Which planes of a weight to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// High plane and protected weights: what products compute with.
    Compute,
    /// All planes: the weight as the optimizer knows it.
    Full,
}

/// Writes rows of a hybrid matrix as floats.
///
/// Shapes: `out` f32 `[rows.len(), K]`. Numerics: `s * q` or `s * ((q * F + r) / F)`, each step one f32
/// operation; protected positions hold their bf16 value. Errors: shape mismatch.
#[derive(Debug)]
pub struct DecodeRows<'a> {
    /// The matrix `[N, K]`.
    pub weight: &'a HybridMatrix,
    /// Which rows.
    pub rows: Range<usize>,
    /// Which planes.
    pub precision: Precision,
    /// The result.
    pub out: MatMut<'a, f32>,
}

impl DecodeRows<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        expect(
            "decode_rows",
            (self.rows.len(), self.weight.cols()),
            (self.out.rows(), self.out.cols()),
        )?;
        expect_rows("decode_rows", &self.rows, self.weight)?;
        let needs_residual = self.precision == Precision::Full && self.weight.residual.is_some();
        if needs_residual && !self.weight.residual_shard().owns(&self.rows) {
            let want = "rows whose residual this process has";
            let got = format_args!("{:?}", self.rows);
            return Err(qft_tensor::Error::shape("decode_rows", want, got).into());
        }
        Ok(())
    }
}

/// Adds the sparse part of `y = x W^T`: `y[t, n] += a_t * sum over protected (n, k) of x[t, k] * v`.
///
/// Shapes: `x` `[T, K]` with a scale per row, `y` f32 `[T, rows.len()]`; `x[t, k]` is the integer. Numerics: from zero, f32
/// fused multiply-adds in rising column order, then one product with `a_t`, then one sum. Nothing happens if the matrix has no
/// protected weights.
#[derive(Debug)]
pub struct SparseForward<'a> {
    /// Quantized input.
    pub x: &'a QMatrix,
    /// The matrix `[N, K]`.
    pub weight: &'a HybridMatrix,
    /// Which rows of it.
    pub rows: Range<usize>,
    /// The result.
    pub y: MatMut<'a, f32>,
}

impl SparseForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "sparse_forward";
        expect(OP, (self.x.rows(), self.rows.len()), (self.y.rows(), self.y.cols()))?;
        expect(OP, (self.x.rows(), self.weight.cols()), (self.x.rows(), self.x.cols()))?;
        expect_row_scales(OP, "x", self.x)?;
        expect_rows(OP, &self.rows, self.weight)
    }
}

/// Adds the sparse part of `dx = dy W`: `dx[t, k] += z_t * sum over protected (n, k) of Z[t, n] * (v / s_n)`.
///
/// Shapes: `dy` `[T, rows.len()]` with a scale per row, `dx` f32 `[T, K]`. The integers `Z` of `dy` stand for the
/// gradient times the row scales of the matrix: `dy[t, n] s_n = z_t Z[t, n]`, as the dense product reads it.
/// Numerics: `v * (1 / s_n)`, each an f32 operation; from zero, f32 fused multiply-adds in row order, then one product
/// with `z_t`, then one sum. Rows whose scale is not a normal number add nothing; [`HybridMatrix::encode`] makes
/// none. Nothing happens if the matrix has no protected weights.
#[derive(Debug)]
pub struct SparseBackward<'a> {
    /// Gradient of the output, quantized with the row scales of the matrix folded in.
    pub dy: &'a QMatrix,
    /// The matrix `[N, K]`.
    pub weight: &'a HybridMatrix,
    /// Which rows of it.
    pub rows: Range<usize>,
    /// The result.
    pub dx: MatMut<'a, f32>,
}

impl SparseBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "sparse_backward";
        expect(OP, (self.dx.rows(), self.rows.len()), (self.dy.rows(), self.dy.cols()))?;
        expect(OP, (self.dy.rows(), self.weight.cols()), (self.dx.rows(), self.dx.cols()))?;
        expect_row_scales(OP, "dy", self.dy)?;
        expect_rows(OP, &self.rows, self.weight)
    }
}

fn expect_row_scales(op: &'static str, name: &str, x: &QMatrix) -> Result<(), Error> {
    if x.axis() == ScaleAxis::Row {
        return Ok(());
    }
    let want = format_args!("one scale per row of {name}");
    Err(qft_tensor::Error::shape(op, want, format_args!("{:?}", x.axis())).into())
}

fn expect(op: &'static str, want: (usize, usize), got: (usize, usize)) -> Result<(), Error> {
    if want == got {
        return Ok(());
    }
    Err(qft_tensor::Error::shape(op, format_args!("{want:?}"), format_args!("{got:?}")).into())
}

fn expect_rows(op: &'static str, rows: &Range<usize>, weight: &HybridMatrix) -> Result<(), Error> {
    if rows.start <= rows.end && rows.end <= weight.rows() {
        return Ok(());
    }
    Err(qft_tensor::Error::shape(
        op,
        format_args!("rows within 0..{}", weight.rows()),
        format_args!("{rows:?}"),
    )
    .into())
}

/// Operations on hybrid matrices.
pub trait HybridOps: QuantizeOps {
    /// See [`DecodeRows`].
    fn decode_rows(&self, op: DecodeRows<'_>) -> Result<(), Error>;

    /// See [`SparseForward`].
    fn sparse_forward(&self, op: SparseForward<'_>) -> Result<(), Error>;

    /// See [`SparseBackward`].
    fn sparse_backward(&self, op: SparseBackward<'_>) -> Result<(), Error>;
}
