//! The hybrid matrix: its format, its planes, and how many bytes they take.

use crate::{Error, ProtectedWeights};
use qft_tensor::{Buffer, Device, Mat, Owner, RowShard, Span};
use std::ops::Range;

/// The largest fraction of protected weights. Beyond it a float format would be smaller.
pub const MAX_PROTECTED_FRACTION: f64 = 0.05;

/// The low-order plane of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residual {
    /// None: the weight is INT8.
    None,
    /// 4 bits, two to a byte: the weight has 12 bits. Even columns are in the low nibble.
    Bits4,
    /// 8 bits: the weight has 16 bits.
    Bits8,
}

impl Residual {
    /// Residual steps in one step of the high plane: F in `w = s * (q + r / F)`.
    pub const fn steps(self) -> i32 {
        match self {
            Self::None => 1,
            Self::Bits4 => 16,
            Self::Bits8 => 256,
        }
    }

    /// Bytes of the residual plane of a row of `cols` weights.
    pub const fn row_bytes(self, cols: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Bits4 => cols.div_ceil(2),
            Self::Bits8 => cols,
        }
    }
}

/// How a weight matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HybridFormat {
    /// The low-order plane.
    pub residual: Residual,
    /// Fraction of the weights that are protected, 0 to [`MAX_PROTECTED_FRACTION`].
    pub protected_fraction: f64,
    /// Whether rows are stored [rotated](qft_tensor::rotation): `W R`.
    pub rotated: bool,
}

impl HybridFormat {
    /// Checks the fraction of protected weights.
    ///
    /// Errors: [`Error::ProtectedFraction`].
    pub fn check(&self) -> Result<(), Error> {
        if (0.0..=MAX_PROTECTED_FRACTION).contains(&self.protected_fraction) {
            return Ok(());
        }
        Err(Error::ProtectedFraction { fraction: self.protected_fraction })
    }

    /// Number of protected weights of a `[rows, cols]` matrix.
    pub fn protected_count(&self, rows: usize, cols: usize) -> usize {
        (self.protected_fraction * (rows * cols) as f64).floor() as usize
    }
}

/// A weight matrix `[N, K]` in hybrid form. See the crate's documentation for the number format.
#[derive(Debug)]
pub struct HybridMatrix {
    /// High plane, i8 `[N, K]`, -127..=127; 0 at protected positions.
    pub q: Buffer<i8>,
    /// Scale of each row, f32 `[N]`.
    pub scale: Buffer<f32>,
    /// Low plane, [`Residual::row_bytes`] bytes for each row of [`HybridMatrix::residual_shard`]; absent for
    /// [`Residual::None`].
    pub residual: Option<Buffer<i8>>,
    /// Protected weights; absent if the format has none.
    pub protected: Option<ProtectedWeights>,
    rows: usize,
    cols: usize,
    format: HybridFormat,
    residual_shard: RowShard,
}

/// Of which rows a process keeps the residual, in a job of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Of those that it updates.
    Own,
    /// Of all: a table that is looked up in full precision.
    All,
}

impl HybridMatrix {
    /// Allocates the planes with unspecified contents; [`HybridMatrix::encode`] fills them.
    ///
    /// Errors: [`Error::ProtectedFraction`], [`qft_tensor::Error::OutOfMemory`].
    pub fn alloc(
        device: &dyn Device,
        (rows, cols): (usize, usize),
        format: HybridFormat,
        kept: Kept,
    ) -> Result<Self, Error> {
        format.check()?;
        let residual_shard = match kept {
            Kept::Own => RowShard::of(device.communicator(), rows),
            Kept::All => RowShard::whole(rows),
        };
        let len = rows.checked_mul(cols).ok_or(qft_tensor::Error::TooLarge {
            op: "HybridMatrix::alloc",
            rows,
            cols,
            dtype: qft_tensor::DType::I8,
        })?;
        let residual = match format.residual {
            Residual::None => None,
            kept => Some(Buffer::alloc(
                device,
                Owner::Residual,
                "residual",
                residual_shard.len() * kept.row_bytes(cols),
            )?),
        };
        let protected = match format.protected_count(rows, cols) {
            0 => None,
            count => Some(ProtectedWeights::alloc(device, rows, cols, count)?),
        };
        Ok(Self {
            q: Buffer::alloc(device, Owner::Weights, "weight", len)?,
            scale: Buffer::alloc(device, Owner::Scales, "weight scale", rows)?,
            residual,
            protected,
            rows,
            cols,
            format,
            residual_shard,
        })
    }

    /// Rows N: outputs of a linear layer, or entries of a vocabulary.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns K: inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The rows whose residual is there.
    pub fn residual_shard(&self) -> RowShard {
        self.residual_shard
    }

    /// How the matrix is stored.
    pub fn format(&self) -> HybridFormat {
        self.format
    }

    /// High plane of some rows, and their scales: the operands of an integer product.
    pub fn dense(&self, rows: Range<usize>) -> Result<(Mat<'_, i8>, Span<'_, f32>), Error> {
        let q = self.q.mat(self.rows, self.cols)?.row_range(rows.clone())?;
        Ok((q, self.scale.span(rows)?))
    }
}
