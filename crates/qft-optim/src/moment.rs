//! Moments of a matrix in 8 or 4 bits: a code per weight, and a bf16 scale per block of 128.

pub mod code;
pub mod dither;

pub use code::MomentCode;
pub use dither::Dither;

use crate::{Error, StatePart};
use half::bf16;
use qft_tensor::numeric::TINY;
use qft_tensor::{Buffer, Device, Owner, RowShard};

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

/// A moment of a matrix `[N, K]`.
#[derive(Debug)]
pub struct Moment {
    /// Codes, i8 `[rows, code.row_bytes(K)]`, of the rows of [`Moment::shard`].
    pub q: Buffer<i8>,
    /// Scales of blocks, `[rows, ceil(K / 128)]`.
    pub scale: Buffer<bf16>,
    /// The meaning of the codes.
    pub code: MomentCode,
    cols: usize,
    shard: RowShard,
    rows: usize,
}

impl Moment {
    /// A moment of zero, of the rows that this process of the device's job owns.
    ///
    /// Errors: [`qft_tensor::Error::OutOfMemory`].
    pub fn zeros(
        device: &dyn Device,
        (rows, cols): (usize, usize),
        code: MomentCode,
    ) -> Result<Self, Error> {
        let shard = RowShard::of(device.communicator(), rows);
        let bytes = shard.len() * code.row_bytes(cols);
        let blocks = shard.len() * cols.div_ceil(BLOCK);
        Ok(Self {
            q: Buffer::zeros(device, Owner::Momentum, "moment", bytes)?,
            scale: Buffer::zeros(device, Owner::Momentum, "moment scale", blocks)?,
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

    /// The values of a row that this process owns, on the host.
    ///
    /// Errors: those of the device.
    pub fn row(&self, device: &dyn Device, row: usize) -> Result<Vec<f32>, Error> {
        let (place, blocks) = (self.shard.place(row), self.cols.div_ceil(BLOCK));
        let bytes = self.code.row_bytes(self.cols);
        let (mut codes, mut scales) = (vec![0; bytes], vec![bf16::ZERO; blocks]);
        self.q.download(device, place * bytes, &mut codes)?;
        self.scale.download(device, place * blocks, &mut scales)?;
        let parts = codes.chunks(self.code.row_bytes(BLOCK)).zip(scales);
        let mut values: Vec<f32> =
            parts.flat_map(|(codes, scale)| self.code.decode(codes, scale)).collect();
        values.truncate(self.cols);
        Ok(values)
    }

    /// Both buffers, with their names in checkpoints.
    pub(crate) fn parts_mut(&mut self, names: [&'static str; 2]) -> [StatePart<'_>; 2] {
        let rows = Some((self.shard, self.rows));
        [StatePart::of(names[0], &mut self.q, rows), StatePart::of(names[1], &mut self.scale, rows)]
    }
}
