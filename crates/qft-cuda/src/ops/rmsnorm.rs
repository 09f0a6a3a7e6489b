//! RMSNorm on the GPU: `kernels/rmsnorm.cu`.

use super::{dims, shares, staging};
use crate::{Arg, Cuda, Launch};
use qft_autograd::ops::{RmsNormBackward, RmsNormForward};
use qft_autograd::{ActivationsOut, Error};

/// Threads of a block that owns a row, as in the kernels.
const ROW_THREADS: u32 = 256;
/// Floats of a row that are added at a time: FORWARD_TILE in the kernel.
const FORWARD_TILE: usize = 2048;

pub(super) fn forward(cuda: &Cuda, op: RmsNormForward<'_>) -> Result<(), Error> {
    const OP: &str = "rmsnorm_forward";
    op.check()?;
    let RmsNormForward { x, gain, eps, rstd, out } = op;
    let gain_len = gain.len();
    let (rows, cols) = (dims::index(OP, rstd.len())?, dims::index(OP, gain_len)?);
    let (x, gain, rstd) = (cuda.read(OP, x)?, cuda.read(OP, gain)?, cuda.write(OP, rstd)?);
    let run = |out, [q, scale]: [Arg; 2], rotated: bool| {
        let staged = staging::row_bytes(cuda, gain_len).filter(|_| rotated);
        let tile = FORWARD_TILE.min(gain_len) * size_of::<f32>();
        let launch = Launch::blocks(rows, ROW_THREADS).with_shared(staged.unwrap_or(tile as u32));
        let format = [Arg::U32(rotated.into()), Arg::U32(staged.is_some().into())];
        let shape = [Arg::U32(cols), Arg::F32(eps)];
        let args = [&[x, gain, rstd, out, q, scale][..], &format, &shape].concat();
        cuda.launch(OP, "rmsnorm_forward_f32", launch, &args)
    };
    match out {
        ActivationsOut::Float(_) if cols == 0 => {}
        ActivationsOut::Float(out) => run(cuda.write(OP, out)?, [Arg::NULL, Arg::NULL], false)?,
        ActivationsOut::Int8(_) if rows == 0 || cols == 0 => {}
        ActivationsOut::Int8(out) => {
            let (q, scale) = (cuda.write(OP, &mut out.q)?, cuda.write(OP, &mut out.scale)?);
            run(Arg::NULL, [q, scale], out.is_rotated())?;
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
