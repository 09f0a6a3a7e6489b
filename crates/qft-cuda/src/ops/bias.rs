//! Biases on the GPU: `kernels/bias.cu`.

use super::{dims, shares};
use crate::{Arg, Cuda, Launch};
use qft_autograd::Error;
use qft_autograd::ops::{AddBias, BiasGradient};

/// Threads of a block, as in the kernel.
const THREADS: u32 = 256;
/// More blocks than these would not fill a GPU better.
const MOST_BLOCKS: u32 = 4096;

pub(super) fn add(cuda: &Cuda, op: AddBias<'_>) -> Result<(), Error> {
    const OP: &str = "add_bias";
    op.check()?;
    let (count, cols) = (op.y.len(), dims::index(OP, op.bias.len())?);
    if count == 0 {
        return Ok(());
    }
    let launch = Launch::strided(count, THREADS as usize, THREADS, MOST_BLOCKS);
    let (y, bias) = (cuda.write(OP, op.y)?, cuda.read(OP, op.bias)?);
    Ok(cuda.launch(OP, "add_bias_f32", launch, &[y, bias, Arg::size(count), Arg::U32(cols)])?)
}

pub(super) fn gradient(cuda: &Cuda, op: BiasGradient<'_>) -> Result<(), Error> {
    const OP: &str = "bias_gradient";
    let (rows, cols) = (op.check()?, op.dbias.len());
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let (dy, dbias) = (cuda.read(OP, op.dy)?, cuda.write(OP, op.dbias)?);
    let shape = [Arg::U32(dims::index(OP, rows)?), Arg::U32(dims::index(OP, cols)?)];
    shares::add(cuda, OP, (rows, cols), dbias, |launch, shares, first| {
        let args = [dy, shares, first, shape[0], shape[1]];
        Ok(cuda.launch(OP, "bias_shares_f32", launch, &args)?)
    })
}
