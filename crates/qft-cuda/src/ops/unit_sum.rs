//! Sums of whole numbers of a unit on the GPU: `kernels/unit_sum.cu`.

use super::dims;
use crate::{Arg, Cuda, Launch};
use qft_autograd::Error;
use qft_autograd::ops::{FromUnits, RaiseBound};

/// Threads of a block, as in the kernel.
const THREADS: u32 = 256;
/// More blocks than these would not fill a GPU better.
const MOST_BLOCKS: u32 = 4096;

pub(super) fn raise_bound(cuda: &Cuda, op: RaiseBound<'_>) -> Result<(), Error> {
    const OP: &str = "raise_bound";
    op.check()?;
    let count = op.bound.len();
    if count == 0 {
        return Ok(());
    }
    let launch = Launch::strided(count, THREADS as usize, THREADS, MOST_BLOCKS);
    let (scale, bound) = (cuda.read(OP, op.scale)?, cuda.write(OP, op.bound)?);
    let args = [scale, Arg::F32(op.factor), bound, Arg::size(count)];
    Ok(cuda.launch(OP, "raise_bound_f32", launch, &args)?)
}

pub(super) fn from(cuda: &Cuda, op: FromUnits<'_>) -> Result<(), Error> {
    const OP: &str = "from_units";
    if op.check()? == 0 {
        return Ok(());
    }
    let rows = op.bound.len();
    let args = [
        cuda.read(OP, op.sum)?,
        cuda.read_span(OP, op.bound)?,
        Arg::U32(op.count),
        cuda.write(OP, op.values)?,
        Arg::U32(dims::index(OP, rows)?),
        Arg::U32(dims::index(OP, op.cols)?),
    ];
    let launch = Launch::strided(rows, 1, THREADS, MOST_BLOCKS);
    Ok(cuda.launch(OP, "from_units_i32_f32", launch, &args)?)
}
