//! Cross-entropy over blocks of the vocabulary on the GPU: `kernels/loss.cu`.

use super::dims;
use crate::{Arg, Cuda, Launch};
use qft_autograd::Error;
use qft_autograd::ops::{LossGradient, LossStats};

/// Threads of a block that owns a row, as in the kernels.
const THREADS: u32 = 256;

pub(super) fn stats(cuda: &Cuda, op: LossStats<'_>) -> Result<(), Error> {
    const OP: &str = "loss_stats";
    op.check()?;
    let LossStats { logits, start, cols, targets, max, sum, target_logit } = op;
    let rows = dims::index(OP, targets.len())?;
    if cols == 0 {
        return Ok(());
    }
    let args = [
        cuda.read(OP, logits)?,
        cuda.read(OP, targets)?,
        cuda.write(OP, max)?,
        cuda.write(OP, sum)?,
        cuda.write(OP, target_logit)?,
        Arg::U32(dims::index(OP, start)?),
        Arg::U32(dims::index(OP, cols)?),
    ];
    Ok(cuda.launch(OP, "loss_stats_f32", Launch::blocks(rows, THREADS), &args)?)
}

pub(super) fn gradient(cuda: &Cuda, op: LossGradient<'_>) -> Result<(), Error> {
    const OP: &str = "loss_gradient";
    op.check()?;
    let LossGradient { logits, start, cols, targets, max, sum, weight } = op;
    let rows = dims::index(OP, targets.len())?;
    if cols == 0 {
        return Ok(());
    }
    let args = [
        cuda.write(OP, logits)?,
        cuda.read(OP, targets)?,
        cuda.read(OP, max)?,
        cuda.read(OP, sum)?,
        Arg::U32(dims::index(OP, start)?),
        Arg::U32(dims::index(OP, cols)?),
        Arg::F32(weight),
    ];
    Ok(cuda.launch(OP, "loss_gradient_f32", Launch::blocks(rows, THREADS), &args)?)
}
