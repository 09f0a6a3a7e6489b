//! SwiGLU on the CPU.

use super::exp::sigmoid;
use super::lanes::with_scratch;
use super::rows::{self, OutRows};
use crate::Error;
use crate::ops::{SwigluBackward, SwigluForward};
use qft_tensor::cpu::wide::RowValues;
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
            OutRows::Int8 { q, scale, maxima } => {
                let inputs = gate.chunks_exact(cols).zip(up.chunks_exact(cols));
                for ((gate, up), (q, scale)) in inputs.zip(q.chunks_exact_mut(cols).zip(scale)) {
                    row(buffer, gate, up);
                    *scale = rows::quantize(q, maxima, (buffer, buffer), |x, _| x);
                }
            }
        }
    }
}

/// The rows of the result.
struct Activated<'a> {
    gate: &'a [f32],
    up: &'a [f32],
}

impl RowValues for Activated<'_> {
    #[inline(always)]
    fn write(&self, index: usize, out: &mut [f32]) {
        let start = index * out.len();
        row(out, &self.gate[start..], &self.up[start..]);
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
    let SwigluForward { gate, up, rows, mut out } = op;
    if gate.is_empty() {
        return rows::write_nothing(out);
    }
    let (isa, gate, up, cols) = (cpu.isa(), gate.host()?, up.host()?, gate.len() / rows);
    let part = rows::PER_TASK * cols;
    let mut maxima = rows::maxima(&out);
    let tasks = rows::split(&mut out, &mut maxima, cols)?;
    let inputs = gate.par_chunks(part).zip(up.par_chunks(part));
    cpu.for_each(tasks.into_par_iter().zip(inputs), |(out, (gate, up))| {
        with_scratch(cols, |buffer| isa.run(Forward { gate, up, cols, buffer, out }));
    });
    rows::widen(cpu, out, maxima, &Activated { gate, up })
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
