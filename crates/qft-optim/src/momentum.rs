//! INT8 momentum: one byte per weight and a bf16 scale per block of 128.

use crate::Error;
use half::bf16;
use qft_tensor::numeric::TINY;
use qft_tensor::{Buffer, Device, Owner, RowShard};
use serde::{Deserialize, Serialize};

/// Elements of a row that share a scale. Blocks do not cross rows; the last of a row may be shorter.
pub const BLOCK: usize = 128;

/// The scale of a block whose largest magnitude is `max`: the next bf16 that is not smaller.
///
/// Zero for a block of zeros; the largest finite bf16 for what is beyond it.
#[inline(always)]
pub fn block_scale(max: f32) -> bf16 {
    if max < TINY {
        return bf16::ZERO;
    }
    let up = ((max.to_bits() + 0xFFFF) >> 16) as u16;
    bf16::from_bits(up.min(bf16::MAX.to_bits()))
}

/// How an INT8 code stands for a momentum value; `a = |m| / max` over the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum MomentumCode {
    /// Square-root companding: code `k = 127 sqrt(a)`, value `(k / 127)^2 max`. Small elements stay precise
    /// next to large ones.
    #[default]
    Sqrt,
    /// Uniform: `k = 127 a`.
    Linear,
}

/// The momentum of a matrix `[N, K]`.
#[derive(Debug)]
pub struct Momentum {
    /// Signed codes, i8 `[rows, K]`, of the rows of [`Momentum::shard`].
    pub q: Buffer<i8>,
    /// Block maxima, rounded up to bf16, `[rows, ceil(K / 128)]`.
    pub scale: Buffer<bf16>,
    /// The meaning of the codes.
    pub code: MomentumCode,
    cols: usize,
    shard: RowShard,
    rows: usize,
}

impl Momentum {
    /// A momentum of zero, of the rows that this process of the device's job owns.
    ///
    /// Errors: [`qft_tensor::Error::OutOfMemory`].
    pub fn zeros(
        device: &dyn Device,
        (rows, cols): (usize, usize),
        code: MomentumCode,
    ) -> Result<Self, Error> {
        let shard = RowShard::of(device.communicator(), rows);
        let blocks = shard.len() * cols.div_ceil(BLOCK);
        Ok(Self {
            q: Buffer::zeros(device, Owner::Momentum, "momentum", shard.len() * cols)?,
            scale: Buffer::zeros(device, Owner::Momentum, "momentum scale", blocks)?,
            code,
            rows,
            cols,
            shard,
        })
    }

    /// The rows that it is of.
    pub fn shard(&self) -> RowShard {
        self.shard
    }

    /// Rows N.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns K.
    pub fn cols(&self) -> usize {
        self.cols
    }
}
