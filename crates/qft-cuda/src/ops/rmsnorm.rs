//! RMSNorm on the GPU: `kernels/rmsnorm.cu`.

use super::{dims, shares};
use crate::{Arg, Cuda, Launch};
use qft_autograd::ops::{RmsNormBackward, RmsNormForward};
use qft_autograd::{ActivationsOut, Error};

/// Threads of a block that owns a row, as in the kernels.
const ROW_THREADS: u32 = 256;

pub(super) fn forward(cuda: &Cuda, op: RmsNormForward<'_>) -> Result<(), Error> {
    const OP: &str = "rmsnorm_forward";
    op.check()?;
    let RmsNormForward { x, gain, eps, rstd, out } = op;
    let (rows, cols) = (dims::index(OP, rstd.len())?, dims::index(OP, gain.len())?);
    let launch = Launch::blocks(rows, ROW_THREADS);
    let (x, gain, rstd) = (cuda.read(OP, x)?, cuda.read(OP, gain)?, cuda.write(OP, rstd)?);
    let run = |out, [q, scale, rotated]: [Arg; 3]| {
        let shape = [Arg::U32(cols), Arg::F32(eps)];
        let args = [&[x, gain, rstd, out, q, scale, rotated][..], &shape].concat();
        cuda.launch(OP, "rmsnorm_forward_f32", launch, &args)
    };
    match out {
        ActivationsOut::Float(_) if cols == 0 => {}
        ActivationsOut::Float(out) => {
            run(cuda.write(OP, out)?, [Arg::NULL, Arg::NULL, Arg::U32(0)])?
        }
        ActivationsOut::Int8(_) if rows == 0 || cols == 0 => {}
        ActivationsOut::Int8(out) => {
            let (q, scale) = (cuda.write(OP, &mut out.q)?, cuda.write(OP, &mut out.scale)?);
            run(Arg::NULL, [q, scale, Arg::U32(out.is_rotated().into())])?;
        }
    }
    Ok(())
}

pub(super) fn backward(cuda: &Cuda, op: RmsNormBackward<'_>) -> Result<(), Error> {
    const OP: &str = "rmsnorm_backward";
    op.check()?;
    let RmsNormBackward { x, gain, rstd, dy, dx, dgain } = op;
    let (tokens, width) = (rstd.len(), gain.len());
    let (rows, cols) = (dims::index(OP, tokens)?, dims::index(OP, width)?);
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let (x, gain, rstd) = (cuda.read(OP, x)?, cuda.read(OP, gain)?, cuda.read(OP, rstd)?);
    let (dy, dx, dgain) = (cuda.read(OP, dy)?, cuda.write(OP, dx)?, cuda.write(OP, dgain)?);
    let args = [x, gain, rstd, dy, dx, Arg::U32(cols)];
    cuda.launch(OP, "rmsnorm_backward_f32", Launch::blocks(rows, ROW_THREADS), &args)?;
    shares::add(cuda, OP, (tokens, width), dgain, |launch, shares, first| {
        let args = [x, rstd, dy, shares, first, Arg::U32(rows), Arg::U32(cols)];
        Ok(cuda.launch(OP, "rmsnorm_gain_shares_f32", launch, &args)?)
    })
}
