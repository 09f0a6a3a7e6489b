//! SwiGLU on the CPU.

use super::exp::sigmoid;
use super::lanes::with_scratch;
use super::rows::{self, OutRows};
use crate::Error;
use crate::ops::{SwigluBackward, SwigluForward};
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Elements per task of the backward pass.
const CHUNK: usize = 8 << 10;

#[inline(always)]
fn row(out: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate * sigmoid(gate) * up;
    }
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    cols: usize,
    /// One row.
    buffer: &'a mut [f32],
    out: OutRows<'a>,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { gate, up, cols, buffer, out } = self;
        match out {
            OutRows::Float(out) => row(out, gate, up),
            OutRows::Int8(mut out) => {
                let inputs = gate.chunks_exact(cols).zip(up.chunks_exact(cols));
                for (r, (gate, up)) in inputs.enumerate() {
                    row(buffer, gate, up);
                    out.quantize(r, buffer);
                }
            }
        }
    }
}

struct Backward<'a> {
    dy: &'a [f32],
    gate: &'a mut [f32],
    up: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((gate, up), &dy) in self.gate.iter_mut().zip(self.up).zip(self.dy) {
            let (g, u, s) = (*gate, *up, sigmoid(*gate));
            // d silu = s + g s (1 - s).
            *gate = dy * u * (g * s).mul_add(1.0 - s, s);
            *up = dy * (g * s);
        }
    }
}

pub(super) fn forward(cpu: &Cpu, op: SwigluForward<'_>) -> Result<(), Error> {
    op.check()?;
    let SwigluForward { gate, up, rows, out } = op;
    if gate.is_empty() {
        return Ok(());
    }
    let (isa, gate, up, cols) = (cpu.isa(), gate.host()?, up.host()?, gate.len() / rows);
    let part = rows::PER_TASK * cols;
    let tasks = rows::split(out, cols)?;
    let inputs = gate.par_chunks(part).zip(up.par_chunks(part));
    cpu.for_each(tasks.into_par_iter().zip(inputs), |(out, (gate, up))| {
        with_scratch(cols, |buffer| isa.run(Forward { gate, up, cols, buffer, out }));
    });
    Ok(())
}

pub(super) fn backward(cpu: &Cpu, op: SwigluBackward<'_>) -> Result<(), Error> {
    op.check()?;
    let SwigluBackward { dy, gate, up } = op;
    let (isa, dy, gate, up) = (cpu.isa(), dy.host()?, gate.host_mut()?, up.host_mut()?);
    let outputs = gate.par_chunks_mut(CHUNK).zip(up.par_chunks_mut(CHUNK));
    cpu.for_each(outputs.zip(dy.par_chunks(CHUNK)), |((gate, up), dy)| {
        isa.run(Backward { dy, gate, up });
    });
    Ok(())
}
