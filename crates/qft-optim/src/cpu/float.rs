//! Lion and AdamW on float parameters.

use super::{TASK, add_squares};
use crate::adamw::AdamWFactors;
use crate::lion::sign;
use crate::{Error, FloatUpdate, Rule};
use qft_tensor::numeric::LANES;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// A rule with everything computed that does not depend on the element.
#[derive(Clone, Copy)]
enum RuleStep {
    Lion { beta1: f32, beta2: f32, decay: f32 },
    AdamW { beta1: f32, beta2: f32, eps: f32, factors: AdamWFactors },
}

impl RuleStep {
    fn new(rule: Rule, lr: f32, step: u32) -> Self {
        match rule {
            Rule::Lion(config) => {
                Self::Lion { beta1: config.beta1, beta2: config.beta2, decay: config.weight_decay }
            }
            Rule::AdamW(config) => {
                let factors = AdamWFactors::new(&config, lr, step);
                Self::AdamW { beta1: config.beta1, beta2: config.beta2, eps: config.eps, factors }
            }
        }
    }
}

struct Task<'a> {
    rule: RuleStep,
    lr: f32,
    grad_scale: f32,
    w: &'a mut [f32],
    m: &'a mut [f32],
    /// Empty for Lion.
    v: &'a mut [f32],
    grad: &'a [f32],
    square: &'a mut f64,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lr, grad_scale, w, m, v, grad, .. } = self;
        let mut lanes = [0.0; LANES];
        let (chunks, tail) = grad.as_chunks::<LANES>();
        let scale = |g: &f32| g * grad_scale;
        for chunk in chunks {
            add_squares(&chunk.each_ref().map(scale), 1.0, &mut lanes);
        }
        for (lane, g) in lanes.iter_mut().zip(tail) {
            *lane += scale(g) * scale(g);
        }
        *self.square = lanes.iter().copied().map(f64::from).sum();
        match self.rule {
            RuleStep::Lion { beta1, beta2, decay } => {
                for ((w, m), g) in w.iter_mut().zip(m).zip(grad) {
                    let g = scale(g);
                    let c = beta1 * *m + (1.0 - beta1) * g;
                    *w -= lr * (sign(c) + decay * *w);
                    *m = beta2 * *m + (1.0 - beta2) * g;
                }
            }
            RuleStep::AdamW { beta1, beta2, eps, factors } => {
                let AdamWFactors { keep, rate, root } = factors;
                for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(grad) {
                    let g = scale(g);
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * (g * g);
                    *w = *w * keep - rate * (*m / (v.sqrt() / root + eps));
                }
            }
        }
    }
}

pub(super) fn float_update(cpu: &Cpu, op: FloatUpdate<'_>) -> Result<(), Error> {
    op.check()?;
    let FloatUpdate { weight, state, start, grad, grad_scale, lr, rule, step, tensor, stats } = op;
    let (rule, isa, grad) = (RuleStep::new(rule, lr, step), cpu.isa(), grad.host()?);
    let range = start..start + grad.len();
    let mut squares = vec![0.0; grad.len().div_ceil(TASK)];
    let w = &mut weight.host_mut()?[range.clone()];
    let m = &mut state.m.host_mut()?[range.clone()];
    let mut v = match &mut state.v {
        Some(v) => &mut v.host_mut()?[range],
        None => Default::default(),
    };
    let tasks: Vec<Task<'_>> = (w.chunks_mut(TASK))
        .zip(m.chunks_mut(TASK))
        .zip(grad.chunks(TASK))
        .zip(&mut squares)
        .map(|(((w, m), grad), square)| {
            let count = w.len().min(v.len());
            let (here, behind) = std::mem::take(&mut v).split_at_mut(count);
            v = behind;
            Task { rule, lr, grad_scale, w, m, v: here, grad, square }
        })
        .collect();
    cpu.for_each(tasks.into_par_iter(), |task| isa.run(task));
    let line = &mut stats.sums.host_mut()?[2 * tensor as usize];
    *line += squares.iter().sum::<f64>() as f32;
    Ok(())
}
