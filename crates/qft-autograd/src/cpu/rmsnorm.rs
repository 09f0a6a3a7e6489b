//! RMSNorm on the CPU.

use super::lanes::{self, with_scratch};
use super::rows::{self, OutRows};
use crate::Error;
use crate::ops::{RmsNormBackward, RmsNormForward};
use qft_tensor::numeric::LANES;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Tokens whose shares of the gain's gradient are summed before they meet those of other blocks.
const BLOCK: usize = 64;

struct Forward<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    eps: f32,
    rstd: &'a mut [f32],
    /// One row.
    buffer: &'a mut [f32],
    out: OutRows<'a>,
}

#[inline(always)]
fn row(out: &mut [f32], x: &[f32], rstd: f32, gain: &[f32]) {
    for ((out, &x), &gain) in out.iter_mut().zip(x).zip(gain) {
        *out = x * rstd * gain;
    }
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, gain, eps, rstd, buffer, mut out } = self;
        let cols = gain.len();
        for (r, (x, rstd)) in x.chunks_exact(cols).zip(rstd).enumerate() {
            let scale = 1.0 / (lanes::dot(x, x) / cols as f32 + eps).sqrt();
            *rstd = scale;
            match &mut out {
                OutRows::Float(out) => row(&mut out[r * cols..][..cols], x, scale, gain),
                OutRows::Int8(out) => {
                    row(buffer, x, scale, gain);
                    out.quantize(r, buffer);
                }
            }
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    rstd: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    /// Share of this block, `[C]`.
    dgain: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, gain, rstd, dy, dx, dgain } = self;
        let cols = gain.len();
        dgain.fill(0.0);
        let rows = x.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(dx.chunks_exact_mut(cols));
        for (((x, dy), dx), &rstd) in rows.zip(rstd) {
            // sum of dy * gain * x; once times rstd makes it xhat, once more is the factor of xhat = x * rstd.
            let mean = rstd * (triple(dy, gain, x) / cols as f32);
            let inner = (x.iter().zip(dy)).zip(gain.iter().zip(dx.iter_mut().zip(&mut *dgain)));
            for ((&x, &dy), (&gain, (dx, dgain))) in inner {
                let xhat = x * rstd;
                *dx = rstd.mul_add(xhat.mul_add(-mean, dy * gain), *dx);
                *dgain = dy.mul_add(xhat, *dgain);
            }
        }
    }
}

/// `sum of a[i] * b[i] * c[i]`, element `i` in lane `i % 16`.
#[inline(always)]
fn triple(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    let (c, c_tail) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] = (a[i] * b[i]).mul_add(c[i], lanes[i]);
        }
    }
    for (lane, ((&a, &b), &c)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail).zip(c_tail)) {
        *lane = (a * b).mul_add(c, *lane);
    }
    lanes::sum(lanes)
}

pub(super) fn forward(cpu: &Cpu, op: RmsNormForward<'_>) -> Result<(), Error> {
    op.check()?;
    let RmsNormForward { x, gain, eps, rstd, out } = op;
    let (isa, x, gain, rstd) = (cpu.isa(), x.host()?, gain.host()?, rstd.host_mut()?);
    let cols = gain.len();
    if rstd.is_empty() || cols == 0 {
        return Ok(());
    }
    let tasks = rows::split(out, cols)?;
    let inputs = x.par_chunks(rows::PER_TASK * cols).zip(rstd.par_chunks_mut(rows::PER_TASK));
    cpu.for_each(tasks.into_par_iter().zip(inputs), |(out, (x, rstd))| {
        with_scratch(cols, |buffer| isa.run(Forward { x, gain, eps, rstd, buffer, out }));
    });
    Ok(())
}

pub(super) fn backward(cpu: &Cpu, op: RmsNormBackward<'_>) -> Result<(), Error> {
    op.check()?;
    let RmsNormBackward { x, gain, rstd, dy, dx, dgain } = op;
    let (isa, x, gain, rstd, dy) = (cpu.isa(), x.host()?, gain.host()?, rstd.host()?, dy.host()?);
    let (dx, dgain) = (dx.host_mut()?, dgain.host_mut()?);
    let cols = gain.len();
    if rstd.is_empty() || cols == 0 {
        return Ok(());
    }
    let mut shares = vec![0.0; rstd.len().div_ceil(BLOCK) * cols];
    let part = BLOCK * cols;
    let inputs = x.par_chunks(part).zip(dy.par_chunks(part)).zip(rstd.par_chunks(BLOCK));
    let outputs = dx.par_chunks_mut(part).zip(shares.par_chunks_mut(cols));
    cpu.for_each(inputs.zip(outputs), |(((x, dy), rstd), (dx, dgain))| {
        isa.run(Backward { x, gain, rstd, dy, dx, dgain });
    });
    for share in shares.chunks_exact(cols) {
        for (sum, share) in dgain.iter_mut().zip(share) {
            *sum += share;
        }
    }
    Ok(())
}
