//! What the tests of the optimizer share.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use half::bf16;
use qft_optim::{
    AdamWConfig, LionConfig, MatrixState, MatrixUpdate, MomentCode, OptimOps, Rule, UpdateStats,
    WeightRounding,
};
use qft_quant::{DecodeRows, Error, HybridFormat, HybridMatrix, HybridOps, Precision, Residual};
use qft_tensor::{Buffer, Cpu, CpuConfig, Element, Isa, Owner, Purpose, RngKey};
use std::ops::Range;

pub const RESIDUALS: [Residual; 3] = [Residual::None, Residual::Bits4, Residual::Bits8];

pub fn cpu() -> Cpu {
    Cpu::new(CpuConfig { threads: 2, isa: Isa::detect().unwrap() }).unwrap()
}

pub fn key(seed: u64, step: u32) -> RngKey {
    RngKey::new(seed, step, 0, Purpose::Update)
}

/// All that one update changes.
pub struct Trained {
    pub weight: HybridMatrix,
    pub state: MatrixState,
    pub stats: UpdateStats,
}

pub const ADAMW: AdamWConfig =
    AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };

/// Rules with weight decay, and the codes of the first moment that they may have.
pub fn rules() -> Vec<(Rule, MomentCode)> {
    let lion = Rule::Lion(LionConfig { weight_decay: 0.1, ..LionConfig::default() });
    let all = [lion, Rule::AdamW(ADAMW)].into_iter();
    all.flat_map(|rule| rule.codes().iter().map(move |&code| (rule, code))).collect()
}

/// What a step of a test needs beside the gradient.
#[derive(Clone, Copy)]
pub struct Step {
    pub lr: f32,
    pub grad_scale: f32,
    pub rule: Rule,
    pub rounding: WeightRounding,
    pub key: RngKey,
}

impl Step {
    pub fn new(lr: f32, key: RngKey) -> Self {
        let rule = Rule::Lion(LionConfig::default());
        Self { lr, grad_scale: 1.0, rule, rounding: WeightRounding::Stochastic, key }
    }
}

/// The states, copied to the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    pub q: Vec<i8>,
    pub r: Vec<i8>,
    pub scale: Vec<f32>,
    pub values: Vec<bf16>,
    /// Codes and scales of each moment.
    pub moments: Vec<(Vec<i8>, Vec<bf16>)>,
}

impl Trained {
    pub fn new(
        cpu: &Cpu,
        (rows, cols): (usize, usize),
        w: &[f32],
        residual: Residual,
        protected_fraction: f64,
        code: MomentCode,
    ) -> Self {
        let format = HybridFormat { residual, protected_fraction, rotated: false };
        let rule = Rule::Lion(LionConfig::default());
        Self::in_format(cpu, (rows, cols), w, format, (rule, code))
    }

    pub fn in_format(
        cpu: &Cpu,
        (rows, cols): (usize, usize),
        w: &[f32],
        format: HybridFormat,
        (rule, code): (Rule, MomentCode),
    ) -> Self {
        let read = &mut |range: Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&w[range.start * cols..range.end * cols]);
            Ok::<(), Error>(())
        };
        Self {
            weight: HybridMatrix::encode(cpu, (rows, cols), format, read).unwrap().0,
            state: MatrixState::zeros(cpu, (rows, cols), rule, code).unwrap(),
            stats: UpdateStats::zeros(cpu, 1).unwrap(),
        }
    }

    pub fn update(&mut self, cpu: &Cpu, rows: Range<usize>, grad: &[f32], step: Step) {
        let mut grad = Buffer::from_host(cpu, Owner::Gradients, "gradient", grad).unwrap();
        let grad = grad.mat_mut(rows.len(), self.weight.cols()).unwrap();
        cpu.matrix_update(MatrixUpdate {
            weight: &mut self.weight,
            state: &mut self.state,
            rule: step.rule,
            rows,
            grad,
            grad_scale: step.grad_scale,
            lr: step.lr,
            rounding: step.rounding,
            key: step.key,
            stats: &mut self.stats,
        })
        .unwrap();
    }

    /// An update of all rows.
    pub fn step(&mut self, cpu: &Cpu, grad: &[f32], step: Step) {
        self.update(cpu, 0..self.weight.rows(), grad, step);
    }

    pub fn weights(&self, cpu: &Cpu, precision: Precision) -> Vec<f32> {
        let (rows, cols) = (self.weight.rows(), self.weight.cols());
        let mut out = Buffer::alloc(cpu, Owner::Workspace, "decoded", rows * cols).unwrap();
        cpu.decode_rows(DecodeRows {
            weight: &self.weight,
            rows: 0..rows,
            precision,
            out: out.mat_mut(rows, cols).unwrap(),
        })
        .unwrap();
        out.to_vec(cpu).unwrap()
    }

    pub fn planes(&self) -> Planes {
        let weight = &self.weight;
        let moments = std::iter::once(&self.state.first).chain(&self.state.second);
        Planes {
            q: weight.q.host().unwrap().to_vec(),
            r: weight.residual.as_ref().map_or(vec![], |r| r.host().unwrap().to_vec()),
            scale: weight.scale.host().unwrap().to_vec(),
            values: weight.protected.as_ref().map_or(vec![], |o| o.values.host().unwrap().to_vec()),
            moments: moments.map(|m| (host(&m.q), host(&m.scale))).collect(),
        }
    }

    /// Whether each weight is protected.
    pub fn protected(&self) -> Vec<bool> {
        let (rows, cols) = (self.weight.rows(), self.weight.cols());
        let mut out = vec![false; rows * cols];
        if let Some(protected) = &self.weight.protected {
            let view = qft_quant::ProtectedView::new(protected, cols).unwrap();
            for n in 0..rows {
                view.row(n).for_each(|col, _| out[n * cols + col] = true);
            }
        }
        out
    }
}

fn host<T: Element>(buffer: &Buffer<T>) -> Vec<T> {
    buffer.host().unwrap().to_vec()
}
