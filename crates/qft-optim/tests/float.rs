//! Float rules against f64, in the order of operations that PyTorch documents.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{ADAMW, cpu};
use qft_optim::{
    AdamWConfig, FloatState, FloatUpdate, LionConfig, OptimOps, Rule, SquareSum, UpdateStats,
};
use qft_tensor::{Buffer, Cpu, CpuConfig, Isa, Owner};
use qft_testing::rng::TestRng;

const LEN: usize = 1003;
const STEPS: u32 = 20;
const LR: f32 = 1e-3;
const GRAD_SCALE: f32 = 0.5;

fn rules() -> [Rule; 2] {
    [Rule::Lion(LionConfig { weight_decay: 0.1, ..LionConfig::default() }), Rule::AdamW(ADAMW)]
}

fn gradients() -> Vec<Vec<f32>> {
    let mut rng = TestRng::new(3);
    (0..STEPS).map(|_| rng.normals(LEN, 0.1)).collect()
}

/// Weights after all steps, each done in the given parts, and the sums of squares.
fn run(cpu: &Cpu, rule: Rule, start: &[f32], cuts: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let mut weight = Buffer::from_host(cpu, Owner::Weights, "w", start).unwrap();
    let mut state = FloatState::zeros(cpu, LEN, rule).unwrap();
    let mut stats = UpdateStats::zeros(cpu, 2).unwrap();
    for (step, grad) in gradients().iter().enumerate() {
        let grad = Buffer::from_host(cpu, Owner::Gradients, "g", grad).unwrap();
        for part in cuts.windows(2) {
            cpu.float_update(FloatUpdate {
                weight: &mut weight,
                state: &mut state,
                start: part[0],
                grad: grad.span(part[0]..part[1]).unwrap(),
                grad_scale: GRAD_SCALE,
                lr: LR,
                rule,
                step: step as u32,
                tensor: 1,
                stats: &mut stats,
            })
            .unwrap();
        }
    }
    (weight.to_vec(cpu).unwrap(), stats.sums.to_vec(cpu).unwrap())
}

fn reference(rule: Rule, start: &[f32]) -> Vec<f64> {
    let mut w: Vec<f64> = start.iter().copied().map(f64::from).collect();
    let (mut m, mut v, lr) = (vec![0.0; LEN], vec![0.0; LEN], f64::from(LR));
    for (step, grad) in gradients().iter().enumerate() {
        for i in 0..LEN {
            let g = f64::from(grad[i]) * f64::from(GRAD_SCALE);
            match rule {
                Rule::Lion(config) => {
                    let (b1, b2) = (f64::from(config.beta1), f64::from(config.beta2));
                    let c: f64 = b1 * m[i] + (1.0 - b1) * g;
                    w[i] -= lr * (c.signum() + f64::from(config.weight_decay) * w[i]);
                    m[i] = b2 * m[i] + (1.0 - b2) * g;
                }
                Rule::AdamW(AdamWConfig { beta1, beta2, eps, weight_decay }) => {
                    let (b1, b2, t) = (f64::from(beta1), f64::from(beta2), step as i32 + 1);
                    w[i] *= 1.0 - lr * f64::from(weight_decay);
                    m[i] = b1 * m[i] + (1.0 - b1) * g;
                    v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                    let root: f64 = v[i] / (1.0 - b2.powi(t));
                    w[i] -= lr * (m[i] / (1.0 - b1.powi(t))) / (root.sqrt() + f64::from(eps));
                }
            }
        }
    }
    w
}

#[test]
fn rules_agree_with_f64() {
    let start = TestRng::new(1).normals(LEN, 0.5);
    for rule in rules() {
        let (got, stats) = run(&cpu(), rule, &start, &[0, LEN]);
        for (i, (got, want)) in got.iter().zip(reference(rule, &start)).enumerate() {
            // Each of 20 steps rounds a weight of about 1 (2^-24) and a step of 1e-3 a few times.
            let error = (f64::from(*got) - want).abs();
            assert!(error < 20.0 * 2.0 * 1.2e-7, "{rule:?}: {got} {want} at {i}");
        }
        let squares: f64 = gradients().iter().flatten().map(|&g| f64::from(g).powi(2)).sum();
        assert!((f64::from(stats[2]) / (0.25 * squares) - 1.0).abs() < 1e-5, "{stats:?}");
        assert_eq!([stats[0], stats[1], stats[3]], [0.0; 3]);
    }
}

#[test]
fn cuts_threads_and_isa_change_no_bit() {
    let start = TestRng::new(2).normals(LEN, 0.5);
    for rule in rules() {
        let (want, _) = run(&cpu(), rule, &start, &[0, LEN]);
        for isa in Isa::available() {
            for threads in [1, 2] {
                let cpu = Cpu::new(CpuConfig { threads, isa }).unwrap();
                println!("{rule:?} on {cpu:?}");
                assert!(run(&cpu, rule, &start, &[0, LEN]).0 == want);
                assert!(run(&cpu, rule, &start, &[0, 1, 1, 300, 977, LEN]).0 == want);
            }
        }
    }
}

#[test]
fn squares_are_summed_without_an_update() {
    let cpu = cpu();
    let grad = gradients().concat();
    let buffer = Buffer::from_host(&cpu, Owner::Gradients, "g", &grad).unwrap();
    let mut stats = UpdateStats::zeros(&cpu, 3).unwrap();
    let view = buffer.mat(STEPS as usize, LEN).unwrap().col_range(3..500).unwrap();
    cpu.square_sum(SquareSum { grad: view, first_row: 0, tensor: 2, stats: &mut stats }).unwrap();
    let want: f64 = grad.chunks(LEN).flat_map(|g| &g[3..500]).map(|&g| f64::from(g).powi(2)).sum();
    let got = stats.sums.to_vec(&cpu).unwrap();
    assert!((f64::from(got[4]) / want - 1.0).abs() < 1e-5, "{got:?} {want}");
}
