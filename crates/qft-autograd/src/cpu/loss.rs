//! Cross-entropy over blocks of the vocabulary on the CPU.

use super::exp::exp;
use super::lanes;
use crate::Error;
use crate::ops::{LossGradient, LossStats};
use qft_tensor::numeric::LANES;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

struct Stats<'a> {
    logits: &'a [f32],
    max: &'a mut f32,
    sum: &'a mut f32,
}

impl Kernel for Stats<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let old = *self.max;
        let block = lanes::max(self.logits);
        let max = if block > old { block } else { old };
        let mut sums = [0.0f32; LANES];
        let (head, tail) = self.logits.as_chunks::<LANES>();
        for chunk in head {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += exp(x - max);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(tail) {
            *sum += exp(x - max);
        }
        *self.sum = self.sum.mul_add(exp(old - max), lanes::sum(sums));
        *self.max = max;
    }
}

struct Gradient<'a> {
    logits: &'a mut [f32],
    max: f32,
    factor: f32,
}

impl Kernel for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.logits {
            *x = exp(*x - self.max) * self.factor;
        }
    }
}

/// The target's column within the block, if it is there.
fn target_column(target: u32, start: usize, cols: usize) -> Option<usize> {
    (target as usize).checked_sub(start).filter(|&col| col < cols)
}

pub(super) fn stats(cpu: &Cpu, op: LossStats<'_>) -> Result<(), Error> {
    op.check()?;
    let LossStats { logits, start, cols, targets, max, sum, target_logit } = op;
    if cols == 0 || targets.is_empty() {
        return Ok(());
    }
    let (isa, logits, targets) = (cpu.isa(), logits.host()?, targets.host()?);
    let running = (max.host_mut()?.par_iter_mut())
        .zip(sum.host_mut()?)
        .zip(target_logit.host_mut()?.par_iter_mut());
    let rows = logits.par_chunks_exact(cols).zip(targets);
    cpu.for_each(running.zip(rows), |(((max, sum), target_logit), (logits, &target))| {
        if start == 0 {
            (*max, *sum, *target_logit) = (f32::NEG_INFINITY, 0.0, 0.0);
        }
        if let Some(col) = target_column(target, start, cols) {
            *target_logit = logits[col];
        }
        isa.run(Stats { logits, max, sum });
    });
    Ok(())
}

pub(super) fn gradient(cpu: &Cpu, op: LossGradient<'_>) -> Result<(), Error> {
    op.check()?;
    let LossGradient { logits, start, cols, targets, max, sum, weight } = op;
    if cols == 0 || targets.is_empty() {
        return Ok(());
    }
    let (isa, targets, max, sum) = (cpu.isa(), targets.host()?, max.host()?, sum.host()?);
    let rows = logits.host_mut()?.par_chunks_exact_mut(cols).zip(targets);
    cpu.for_each(rows.zip(max.par_iter().zip(sum)), |((logits, &target), (&max, &sum))| {
        isa.run(Gradient { logits, max, factor: weight / sum });
        if let Some(col) = target_column(target, start, cols) {
            logits[col] -= weight;
        }
    });
    Ok(())
}
