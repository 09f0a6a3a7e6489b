//! INT8 matrices with float scales, and the operations between them and float matrices.

use crate::{Buffer, Device, Error, GemmOps, Mat, MatMut, Owner, RotateRows, Rounding, Span};

/// Which elements of a matrix share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleAxis {
    /// One scale per row: `[rows]`.
    Row,
    /// One scale per column: `[cols]`.
    Column,
}

impl ScaleAxis {
    /// Scales of a `[rows, cols]` matrix.
    pub const fn scales(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Row => rows,
            Self::Column => cols,
        }
    }
}

/// An INT8 matrix with float scales: element `[r, c]` stands for `q[r, c] * scale`.
#[derive(Debug)]
pub struct QMatrix {
    /// i8 `[rows, cols]`, values in -127..=127.
    pub q: Buffer<i8>,
    /// f32, as many as [`ScaleAxis::scales`] says, none negative.
    pub scale: Buffer<f32>,
    rows: usize,
    cols: usize,
    axis: ScaleAxis,
    rotated: bool,
}

impl QMatrix {
    /// Allocates a matrix with unspecified contents.
    ///
    /// Errors: [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn alloc(
        device: &dyn Device,
        owner: Owner,
        name: &'static str,
        (rows, cols): (usize, usize),
        axis: ScaleAxis,
    ) -> Result<Self, Error> {
        let len = rows.checked_mul(cols).ok_or(Error::TooLarge {
            op: "QMatrix::alloc",
            rows,
            cols,
            dtype: crate::DType::I8,
        })?;
        Ok(Self {
            q: Buffer::alloc(device, owner, name, len)?,
            scale: Buffer::alloc(device, owner, name, axis.scales(rows, cols))?,
            rows,
            cols,
            axis,
            rotated: false,
        })
    }

    /// The same matrix, whose rows are [rotated](crate::rotation) before they are quantized if `rotated`: an
    /// input of a linear layer, with one scale per row.
    pub fn with_rotation(self, rotated: bool) -> Self {
        Self { rotated, ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether rows are [rotated](crate::rotation) before they are quantized.
    pub fn is_rotated(&self) -> bool {
        self.rotated
    }

    /// Which elements share a scale.
    pub fn axis(&self) -> ScaleAxis {
        self.axis
    }

    /// The integers as a matrix.
    pub fn ints(&self) -> Result<Mat<'_, i8>, Error> {
        self.q.mat(self.rows, self.cols)
    }

    fn expect_shape(&self, op: &'static str, rows: usize, cols: usize) -> Result<(), Error> {
        if (self.rows, self.cols) == (rows, cols) {
            return Ok(());
        }
        Err(Error::shape(
            op,
            format_args!("[{rows}, {cols}]"),
            format_args!("[{}, {}]", self.rows, self.cols),
        ))
    }
}

/// Quantizes each row: `q = round(x * fold / s)`, `s = absmax(x * fold) / 127`.
///
/// Shapes: `x` f32 `[T, K]`, `fold` f32 `[K]` or absent, `out` `[T, K]` with
/// [`ScaleAxis::Row`]. `fold` multiplies column `k` before the absmax is taken: the scale that lies on the
/// contraction axis of a later product. Where `out` is [rotated](crate::rotation), each row is rotated first; this is to
/// nearest and without `fold`.
/// Numerics: an all-zero (or subnormal) row gets scale 0; values are clamped to -127..=127; NaN becomes 0.
/// Stochastic bits are those of row `first_row + t`, element `k`. Errors: [`Error::ShapeMismatch`].
#[derive(Debug)]
pub struct QuantizeRows<'a> {
    /// The floats.
    pub x: Mat<'a, f32>,
    /// One factor per column, applied first.
    pub fold: Option<Span<'a, f32>>,
    /// How to round.
    pub rounding: Rounding,
    /// The result.
    pub out: &'a mut QMatrix,
}

impl QuantizeRows<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "quantize_rows";
        self.out.expect_shape(OP, self.x.rows(), self.x.cols())?;
        if self.out.axis == ScaleAxis::Column {
            return Err(Error::shape(OP, "scales per row", "scales per column"));
        }
        if self.out.rotated && (self.fold.is_some() || self.rounding != Rounding::Nearest) {
            let expected = "rotated rows, to nearest and without factors";
            let got = format_args!("{:?}, factors: {}", self.rounding, self.fold.is_some());
            return Err(Error::shape(OP, expected, got));
        }
        expect_len(OP, self.fold, self.x.cols())
    }
}

/// Quantizes each column: `q = round(x * fold / s)`, `s = absmax over the column of (x * fold) / 127`.
///
/// Shapes: `x` f32 `[T, N]`, `fold` f32 `[T]` or absent, `out` `[T, N]` with [`ScaleAxis::Column`].
/// Numerics and errors as [`QuantizeRows`].
#[derive(Debug)]
pub struct QuantizeCols<'a> {
    /// The floats.
    pub x: Mat<'a, f32>,
    /// One factor per row, applied first.
    pub fold: Option<Span<'a, f32>>,
    /// How to round.
    pub rounding: Rounding,
    /// The result.
    pub out: &'a mut QMatrix,
}

impl QuantizeCols<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "quantize_cols";
        self.out.expect_shape(OP, self.x.rows(), self.x.cols())?;
        if self.out.axis != ScaleAxis::Column {
            return Err(Error::shape(OP, "scales per column", format_args!("{:?}", self.out.axis)));
        }
        if self.out.rotated {
            return Err(Error::shape(OP, "columns as they are", "rotated rows"));
        }
        expect_len(OP, self.fold, self.x.rows())
    }
}

/// `out[r, c] = q[r, c] * scale`; a rotated matrix stays rotated.
///
/// Shapes: `x` `[R, C]`, `out` f32 `[R, C]`. Numerics: one f32 product. Errors: [`Error::ShapeMismatch`].
#[derive(Debug)]
pub struct Dequantize<'a> {
    /// The integers and scales.
    pub x: &'a QMatrix,
    /// The result.
    pub out: MatMut<'a, f32>,
}

impl Dequantize<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        self.x.expect_shape("dequantize", self.out.rows(), self.out.cols())
    }
}

fn expect_len(op: &'static str, fold: Option<Span<'_, f32>>, len: usize) -> Result<(), Error> {
    match fold {
        Some(fold) if fold.len() != len => {
            Err(Error::shape(op, format_args!("{len} factors"), format_args!("{}", fold.len())))
        }
        _ => Ok(()),
    }
}

/// Conversions between float and INT8 matrices.
pub trait QuantizeOps: GemmOps {
    /// See [`QuantizeRows`].
    fn quantize_rows(&self, op: QuantizeRows<'_>) -> Result<(), Error>;

    /// See [`QuantizeCols`].
    fn quantize_cols(&self, op: QuantizeCols<'_>) -> Result<(), Error>;

    /// See [`RotateRows`].
    fn rotate_rows(&self, op: RotateRows<'_>) -> Result<(), Error>;

    /// See [`Dequantize`].
    fn dequantize(&self, op: Dequantize<'_>) -> Result<(), Error>;
}
