//! Matrix products: the operation descriptions, their checks, and the trait a device implements.

use crate::{Device, Element, Error, Mat, MatMut, Span};

/// The longest contraction whose INT8 products always fit an `i32` sum: `K * 128 * 128 < 2^31`.
pub const MAX_K: usize = 131_071;

/// Which operands are transposed. All matrices are row-major as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Orientation {
    /// `out[M, N] = a[M, K] . b[N, K]^T`: the forward product of a linear layer.
    Nt,
    /// `out[M, N] = a[M, K] . b[K, N]`: the gradient of its input.
    Nn,
    /// `out[M, N] = a[K, M]^T . b[K, N]`: the gradient of its weight.
    Tn,
}

impl Orientation {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Nt, Self::Nn, Self::Tn];

    /// `(M, N, K)` from the stored shapes, or `None` if the contraction lengths differ.
    pub fn dims(self, a: (usize, usize), b: (usize, usize)) -> Option<(usize, usize, usize)> {
        let (m, ka) = if self == Self::Tn { (a.1, a.0) } else { a };
        let (kb, n) = if self == Self::Nt { (b.1, b.0) } else { b };
        (ka == kb).then_some((m, n, ka))
    }
}

/// Where the results of an INT8 product go.
#[derive(Debug)]
pub enum GemmOut<'a> {
    /// f32 `[M, N]`.
    Floats {
        /// The result.
        out: MatMut<'a, f32>,
        /// Whether to add to `out` instead of overwriting it.
        accumulate: bool,
    },
    /// Sums that have no order, i32 `[M, N]`: whole numbers of each row's unit, [`crate::numeric::sum_unit`] of its bound
    /// and the count, nearest with ties to even; what is not a number is 0. Of [`Orientation::Tn`] alone, gradients of weights.
    ///
    /// As many as `count` results of magnitudes up to the bound can be added without leaving the range of `i32`, each also in
    /// parts, half a unit off for each part.
    Units {
        /// The result.
        sum: MatMut<'a, i32>,
        /// The largest magnitude that any result can have, f32 `[M]`.
        bound: Span<'a, f32>,
        /// How many are added.
        count: u32,
        /// Whether to add to `sum` instead of overwriting it.
        accumulate: bool,
    },
}

impl<'a> GemmOut<'a> {
    /// Overwrites `out`.
    pub fn floats(out: MatMut<'a, f32>) -> Self {
        Self::Floats { out, accumulate: false }
    }

    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Floats { out, .. } => (out.rows(), out.cols()),
            Self::Units { sum, .. } => (sum.rows(), sum.cols()),
        }
    }
}

/// INT8 product, scaled into float: `out[m, n] (+)= row_scale[m] * col_scale[n] * sum_k a * b`.
///
/// Shapes: see [`Orientation`]; `out` `[M, N]`, `row_scale` f32 `[M]`, `col_scale` f32 `[N]`.
/// Numerics: the sum is an exact `i32`; it is converted to f32, multiplied by `row_scale`, then by
/// `col_scale`, then joined to the result as [`GemmOut`] says. Independent of thread count and instruction set.
///
/// Errors: [`Error::ShapeMismatch`]; [`Error::AccumulatorRange`] if `K > MAX_K`.
/// Source: docs/ALGORITHM.md#integer-products.
#[derive(Debug)]
pub struct GemmI8<'a> {
    /// Which operands are transposed.
    pub orientation: Orientation,
    /// First operand.
    pub a: Mat<'a, i8>,
    /// Second operand.
    pub b: Mat<'a, i8>,
    /// One factor per row of the result; 1 if absent.
    pub row_scale: Option<Span<'a, f32>>,
    /// One factor per column of the result; 1 if absent.
    pub col_scale: Option<Span<'a, f32>>,
    /// The result.
    pub out: GemmOut<'a>,
}

impl GemmI8<'_> {
    /// Checks all shapes; `(M, N, K)`.
    pub fn check(&self) -> Result<(usize, usize, usize), Error> {
        const OP: &str = "gemm_i8";
        let (m, n, k) = dims(OP, self.orientation, &self.a, &self.b, self.out.shape())?;
        if k > MAX_K {
            return Err(Error::AccumulatorRange { op: OP, k });
        }
        if let GemmOut::Units { bound, .. } = &self.out {
            if self.orientation != Orientation::Tn {
                let got = format_args!("{:?}", self.orientation);
                return Err(Error::shape(OP, "Tn where results are whole numbers", got));
            }
            if bound.len() != m {
                let (expected, got) = (format_args!("{m} bounds"), format_args!("{}", bound.len()));
                return Err(Error::shape(OP, expected, got));
            }
        }
        for (name, scale, len) in [("row", self.row_scale, m), ("column", self.col_scale, n)] {
            if let Some(scale) = scale.filter(|s| s.len() != len) {
                return Err(Error::shape(
                    OP,
                    format_args!("{len} {name} scales"),
                    format_args!("{}", scale.len()),
                ));
            }
        }
        Ok((m, n, k))
    }
}

/// Float product: `out[m, n] (+)= sum_k a * b`.
///
/// Shapes: see [`Orientation`]. Numerics: f32 products and sums; the order of summation depends on the shapes
/// only, not on the thread count. Errors: [`Error::ShapeMismatch`].
#[derive(Debug)]
pub struct GemmF32<'a> {
    /// Which operands are transposed.
    pub orientation: Orientation,
    /// First operand.
    pub a: Mat<'a, f32>,
    /// Second operand.
    pub b: Mat<'a, f32>,
    /// The result.
    pub out: MatMut<'a, f32>,
    /// Whether to add to `out` instead of overwriting it.
    pub accumulate: bool,
}

impl GemmF32<'_> {
    /// Checks all shapes; `(M, N, K)`.
    pub fn check(&self) -> Result<(usize, usize, usize), Error> {
        let out = (self.out.rows(), self.out.cols());
        dims("gemm_f32", self.orientation, &self.a, &self.b, out)
    }
}

fn dims<T: Element>(
    op: &'static str,
    orientation: Orientation,
    a: &Mat<'_, T>,
    b: &Mat<'_, T>,
    out: (usize, usize),
) -> Result<(usize, usize, usize), Error> {
    let stored = ((a.rows(), a.cols()), (b.rows(), b.cols()));
    let (m, n, k) = orientation.dims(stored.0, stored.1).ok_or_else(|| {
        Error::shape(op, "equal contraction lengths", format_args!("{orientation:?} {stored:?}"))
    })?;
    if out != (m, n) {
        let got = format_args!("[{}, {}]", out.0, out.1);
        return Err(Error::shape(op, format_args!("out [{m}, {n}]"), got));
    }
    Ok((m, n, k))
}

/// Matrix products of a device.
pub trait GemmOps: Device {
    /// See [`GemmI8`].
    fn gemm_i8(&self, op: GemmI8<'_>) -> Result<(), Error>;

    /// See [`GemmF32`].
    fn gemm_f32(&self, op: GemmF32<'_>) -> Result<(), Error>;
}
