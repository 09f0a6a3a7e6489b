//! Rotary embedding on the GPU: `kernels/rope.cu`.

use super::dims;
use crate::{Arg, Cuda, Launch};
use qft_autograd::Error;
use qft_autograd::ops::Rope;

/// Threads of a block, as in the kernel.
const THREADS: u32 = 128;

pub(super) fn rope(cuda: &Cuda, op: Rope<'_>) -> Result<(), Error> {
    const OP: &str = "rope";
    op.check()?;
    let Rope { x, positions, inv_freq, heads, size, scale, inverse } = op;
    if x.is_empty() || inv_freq.is_empty() {
        return Ok(());
    }
    let tokens = dims::index(OP, positions.len())?;
    let (heads, size) = (dims::index(OP, heads)?, dims::index(OP, size)?);
    let half = dims::index(OP, inv_freq.len())?;
    // A cosine and a sine of each frequency.
    let shared = dims::index(OP, inv_freq.len() * 2 * size_of::<f32>())?;
    let launch = Launch::blocks(tokens, THREADS).with_shared(shared);
    let args = [
        cuda.write(OP, x)?,
        cuda.read(OP, positions)?,
        cuda.read(OP, inv_freq)?,
        Arg::U32(heads),
        Arg::U32(size),
        Arg::U32(half),
        Arg::F32(scale),
        Arg::F32(if inverse { -scale } else { scale }),
    ];
    Ok(cuda.launch(OP, "rope_f32", launch, &args)?)
}
