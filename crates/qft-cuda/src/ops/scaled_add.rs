//! Sums of buffers on the GPU: `kernels/scaled_add.cu`.

use crate::{Arg, Cuda, Launch};
use qft_autograd::Error;
use qft_autograd::ops::ScaledAdd;

/// Threads of a block, as in the kernel.
const THREADS: u32 = 256;
/// More blocks than these would not fill a GPU better.
const MOST_BLOCKS: u32 = 4096;

pub(super) fn scaled_add(cuda: &Cuda, op: ScaledAdd<'_>) -> Result<(), Error> {
    const OP: &str = "scaled_add";
    op.check()?;
    let count = op.src.len();
    if count == 0 {
        return Ok(());
    }
    let launch = Launch::strided(count, THREADS as usize, THREADS, MOST_BLOCKS);
    let (src, dst) = (cuda.read(OP, op.src)?, cuda.write(OP, op.dst)?);
    let args = [src, Arg::F32(op.scale), dst, Arg::size(count)];
    Ok(cuda.launch(OP, "scaled_add_f32", launch, &args)?)
}
