//! SwiGLU on the GPU: `kernels/swiglu.cu`.

use super::{dims, staging};
use crate::{Arg, Cuda, Launch};
use qft_autograd::ops::{SwigluBackward, SwigluForward};
use qft_autograd::{ActivationsOut, Error};

/// Threads of a block, as in the kernels.
const THREADS: u32 = 256;
/// Elements of a thread, so that few blocks end early.
const PER_THREAD: usize = 4;
/// More blocks than these would not fill a GPU better.
const MOST_BLOCKS: u32 = 4096;

fn elements(count: usize) -> Launch {
    Launch::strided(count, THREADS as usize * PER_THREAD, THREADS, MOST_BLOCKS)
}

pub(super) fn forward(cuda: &Cuda, op: SwigluForward<'_>) -> Result<(), Error> {
    const OP: &str = "swiglu_forward";
    op.check()?;
    let SwigluForward { gate, up, rows, out } = op;
    let len = gate.len();
    let (gate, up) = (cuda.read(OP, gate)?, cuda.read(OP, up)?);
    match out {
        ActivationsOut::Float(out) => {
            let args = [gate, up, cuda.write(OP, out)?, Arg::size(len)];
            cuda.launch(OP, "swiglu_forward_f32", elements(len), &args)?;
        }
        ActivationsOut::Int8(_) if len == 0 => {}
        ActivationsOut::Int8(out) => {
            let (rows, width) = (dims::index(OP, rows)?, len / rows.max(1));
            let cols = Arg::U32(dims::index(OP, width)?);
            let staged = staging::row_bytes(cuda, width);
            let (q, scale) = (cuda.write(OP, &mut out.q)?, cuda.write(OP, &mut out.scale)?);
            let rotated = Arg::U32(out.is_rotated().into());
            let is_staged = Arg::U32(u32::from(staged.is_some()));
            let args = [gate, up, q, scale, rotated, cols, is_staged];
            let launch = Launch::blocks(rows, THREADS).with_shared(staged.unwrap_or(0));
            cuda.launch(OP, "swiglu_forward_f32_i8", launch, &args)?;
        }
    }
    Ok(())
}

pub(super) fn backward(cuda: &Cuda, op: SwigluBackward<'_>) -> Result<(), Error> {
    const OP: &str = "swiglu_backward";
    op.check()?;
    let SwigluBackward { dy, gate, up } = op;
    let len = dy.len();
    let args = [cuda.read(OP, dy)?, cuda.write(OP, gate)?, cuda.write(OP, up)?, Arg::size(len)];
    Ok(cuda.launch(OP, "swiglu_backward_f32", elements(len), &args)?)
}
