//! What quantized training does over several steps, against Lion in f64.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{ADAMW, RESIDUALS, Step, Trained, cpu, key, rules};
use qft_optim::{LionConfig, MatrixState, MomentCode, Rule, UpdateStats, WeightRounding};
use qft_quant::{HybridFormat, Precision, Residual};
use qft_testing::rng::TestRng;

/// Lion in f64.
struct Lion {
    w: Vec<f64>,
    m: Vec<f64>,
}

impl Lion {
    fn new(w: &[f32]) -> Self {
        Self { w: w.iter().copied().map(f64::from).collect(), m: vec![0.0; w.len()] }
    }

    fn step(&mut self, grad: &[f32], lr: f64, config: LionConfig) {
        let (b1, b2) = (f64::from(config.beta1), f64::from(config.beta2));
        for ((w, m), &g) in self.w.iter_mut().zip(&mut self.m).zip(grad) {
            let g = f64::from(g);
            let c = b1 * *m + (1.0 - b1) * g;
            *w -= lr
                * (if c == 0.0 { 0.0 } else { c.signum() } + f64::from(config.weight_decay) * *w);
            *m = b2 * *m + (1.0 - b2) * g;
        }
    }
}

/// Gradients whose sign is not in doubt: the momentum's rounding cannot turn a direction.
fn steady_gradient(rng: &mut TestRng, len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| {
            let side = if i.is_multiple_of(3) { 1.0 } else { -1.0 };
            side * (1.0 + 0.2 * rng.uniform() as f32)
        })
        .collect()
}

const SHAPE: (usize, usize) = (64, 320);
const LEN: usize = SHAPE.0 * SHAPE.1;

#[test]
fn trained_weights_follow_float_lion() {
    let cpu = cpu();
    for residual in RESIDUALS {
        for fraction in [0.0, 0.01] {
            let mut rng = TestRng::new(1);
            let start = rng.normals(LEN, 0.02);
            let code = MomentCode::Sqrt;
            let mut trained = Trained::new(&cpu, SHAPE, &start, residual, fraction, code);
            let before = trained.weights(&cpu, Precision::Full);
            let mut float = Lion::new(&before);
            let first_scale = trained.weight.scale.host().unwrap().to_vec();
            let step_size = first_scale.iter().sum::<f32>() / SHAPE.0 as f32;
            let (lr, steps) = (0.01 * step_size, 40);
            let config = LionConfig { weight_decay: 0.1, ..LionConfig::default() };
            for t in 0..steps {
                let grad = steady_gradient(&mut rng, LEN);
                let rule = Rule::Lion(config);
                trained.step(&cpu, &grad, Step { rule, ..Step::new(lr, key(9, t as u32)) });
                float.step(&grad, f64::from(lr), config);
            }
            let what = format!("{residual:?} {fraction}");
            let after = trained.weights(&cpu, Precision::Full);
            let scale = trained.weight.scale.host().unwrap();
            // A stochastic rounding adds at most a quarter of a squared step of variance, and no more than the
            // fraction of a step that was asked for: |d| (1 - |d|), d in steps of the finest plane.
            let steps_of = f64::from(residual.steps() as f32);
            let (mut squares, mut bias, mut allowed) = (0.0, 0.0, 0.0);
            let protected = trained.protected();
            for i in 0..LEN {
                if protected[i] {
                    // A bf16 step is at most 2^-7 of the weight.
                    let step = f64::from(before[i].abs()) / 128.0;
                    let error = (f64::from(after[i]) - float.w[i]).abs();
                    let spread = (steps as f64 * f64::from(lr) * step).sqrt();
                    assert!(
                        error < 6.0 * spread + step,
                        "{what}: protected weight {i} is off by {error}"
                    );
                    continue;
                }
                let error = f64::from(after[i]) - float.w[i];
                let unit = f64::from(scale[i / SHAPE.1]) / steps_of;
                let d = f64::from(lr) / unit;
                let variance = if d < 1.0 { d * (1.0 - d) } else { 0.25 };
                (squares, bias) = (squares + error * error, bias + error);
                // A row whose largest weight grew was rounded anew, at most a quarter again.
                let grown = if scale[i / SHAPE.1] == first_scale[i / SHAPE.1] { 0.0 } else { 0.25 };
                allowed += (steps as f64 * variance + grown) * unit * unit;
            }
            // Weight decay adds a little to |d|: 10 % and four standard deviations of a mean square.
            assert!(squares < 1.15 * allowed, "{what}: {squares} of {allowed}");
            let deviation = allowed.sqrt();
            assert!(bias.abs() < 5.0 * deviation, "{what}: bias {bias}, deviation {deviation}");
            if residual == Residual::Bits8 {
                let moved: f64 =
                    (float.w.iter().zip(&before)).map(|(w, b)| (w - f64::from(*b)).powi(2)).sum();
                // A step of lr is 2.56 steps of the 16-bit plane and adds a variance of 1/4 at most.
                let ratio = squares / moved;
                assert!(ratio < 1.3 * 40.0 * 0.25 / (40.0f64 * 2.56).powi(2), "{what}: {ratio}");
            }
        }
    }
}

#[test]
fn nearest_rounding_learns_nothing_at_a_fine_tuning_rate() {
    let cpu = cpu();
    let start = TestRng::new(2).normals(LEN, 0.02);
    let grad = vec![1.0; LEN];
    let run = |rounding| {
        let mut trained = Trained::new(&cpu, SHAPE, &start, Residual::None, 0.0, MomentCode::Sqrt);
        let before = trained.weights(&cpu, Precision::Full);
        let scale = trained.weight.scale.host().unwrap();
        let lr = 0.01 * scale.iter().copied().fold(f32::MAX, f32::min);
        for t in 0..20 {
            trained.step(&cpu, &grad, Step { rounding, ..Step::new(lr, key(1, t)) });
        }
        let after = trained.weights(&cpu, Precision::Full);
        let moved = |i: usize| f64::from(after[i]) - f64::from(before[i]);
        let mean = (0..LEN).map(moved).sum::<f64>() / LEN as f64;
        let changed = (0..LEN).filter(|&i| after[i] != before[i]).count();
        (changed, mean, f64::from(lr))
    };
    let (changed, ..) = run(WeightRounding::Nearest);
    assert_eq!(changed, 0, "a hundredth of a step is lost, twenty times");
    let (changed, mean, lr) = run(WeightRounding::Stochastic);
    assert!(changed > LEN / 10, "{changed} of {LEN} weights moved");
    // Twenty steps of lr. A weight's movement has variance lr * step = 100 lr^2 a step (rows with larger scales:
    // up to 1.6 times that): the mean of 20480 weights is within 5 deviations of 12.6 * 4.5 lr / 143.
    assert!((mean / (-20.0 * lr) - 1.0).abs() < 5.0 * 56.6 / 143.1 / 20.0, "mean {mean}, lr {lr}");
}

#[test]
fn a_weight_out_of_range_grows_its_row_and_leaves_the_others_in_place() {
    let cpu = cpu();
    for residual in RESIDUALS {
        let shape = (3, 2000);
        let mut w = TestRng::new(4).normals(6000, 0.002);
        w[2000 + 77] = 0.0127;
        let mut trained = Trained::new(&cpu, shape, &w, residual, 0.0, MomentCode::Linear);
        let before = trained.weights(&cpu, Precision::Full);
        let old = trained.weight.scale.host().unwrap().to_vec();
        let mut grad = vec![0.0; 6000];
        grad[2000 + 77] = -1.0;
        let lr = 0.005;
        trained.step(&cpu, &grad, Step::new(lr, key(3, 0)));
        let after = trained.weights(&cpu, Precision::Full);
        let scale = trained.weight.scale.host().unwrap();
        assert_eq!([scale[0], scale[2]], [old[0], old[2]], "{residual:?}");
        assert_eq!(trained.stats.sums.host().unwrap(), [1.0, 1.0], "{residual:?}");
        let unit = f64::from(scale[1]) / f64::from(residual.steps());
        // The row had steps of absmax / 127; now its largest weight takes 124 of the new ones.
        assert!((f64::from(scale[1]) / (0.0177 / 124.0) - 1.0).abs() < 0.01, "{residual:?}");
        assert!(
            (f64::from(after[2077]) - 0.0177).abs() < 2.0 * unit,
            "{residual:?}: nothing is cut off"
        );
        let mut sum = 0.0;
        for i in 0..6000 {
            let error = f64::from(after[i]) - f64::from(before[i]);
            if i / 2000 != 1 {
                assert_eq!(error, 0.0, "{residual:?}: rows beside it are untouched");
            } else if i != 2077 {
                assert!(error.abs() <= 1.001 * unit, "{residual:?}: {error} at {i}, step {unit}");
                sum += error;
            }
        }
        // Uniformly distributed fractions: a mean error of 0 with deviation below half a step.
        assert!((sum / 1999.0).abs() < 5.0 * 0.5 * unit / 1999f64.sqrt(), "{residual:?}: {sum}");
        let mean_square = (0..1999).map(|i| {
            let i = 2000 + if i >= 77 { i + 1 } else { i };
            (f64::from(after[i]) - f64::from(before[i])).powi(2)
        });
        let root = (mean_square.sum::<f64>() / 1999.0).sqrt();
        assert!(root < 0.5 * unit, "{residual:?}: on average half a new step, got {}", root / unit);
    }
}

#[test]
fn rows_may_be_cut_anywhere() {
    let cpu = cpu();
    let shape = (50, 333);
    let len = shape.0 * shape.1;
    for residual in RESIDUALS {
        for (rule, code) in rules() {
            let mut rng = TestRng::new(6);
            let w = rng.normals(len, 0.02);
            let format = HybridFormat { residual, protected_fraction: 0.01, rotated: false };
            let new = || Trained::in_format(&cpu, shape, &w, format, (rule, code));
            let (mut whole, mut cut) = (new(), new());
            for t in 0..3 {
                let grad = rng.normals(len, 1e-3);
                let step = Step { rule, ..Step::new(1e-4 * 30f32.powi(t), key(5, t as u32)) };
                whole.step(&cpu, &grad, step);
                for rows in [0..1, 1..1, 1..20, 20..21, 21..50] {
                    let part = &grad[rows.start * shape.1..rows.end * shape.1];
                    cut.update(&cpu, rows, part, step);
                }
            }
            assert!(whole.planes() == cut.planes(), "{residual:?} {rule:?} {code:?}");
            let (a, b) = (whole.stats.sums.host().unwrap(), cut.stats.sums.host().unwrap());
            // Only the sum of squares is rounded once more per cut.
            assert!((a[0] - b[0]).abs() < 1e-6 * a[0] && a[1] == b[1], "{a:?} {b:?}");
        }
    }
}

#[test]
fn what_is_out_of_range_is_refused() {
    let cpu = cpu();
    let mut trained = Trained::new(&cpu, (2, 8), &[0.1; 16], Residual::None, 0.0, MomentCode::Sqrt);
    let mut grad = qft_tensor::Buffer::zeros(&cpu, qft_tensor::Owner::Gradients, "g", 16).unwrap();
    let mut update = |rule, cols, tensor| {
        let op = qft_optim::MatrixUpdate {
            weight: &mut trained.weight,
            state: &mut trained.state,
            rule,
            rows: 0..2,
            grad: grad.mat_mut(2, cols).unwrap(),
            grad_scale: 1.0,
            lr: 0.1,
            rounding: WeightRounding::Nearest,
            key: qft_tensor::RngKey::new(0, 0, tensor, qft_tensor::Purpose::Update),
            stats: &mut trained.stats,
        };
        qft_optim::OptimOps::matrix_update(&cpu, op)
    };
    let good = Rule::Lion(LionConfig::default());
    assert!(update(good, 8, 0).is_ok());
    let bad = LionConfig { beta1: 1.0, ..LionConfig::default() };
    assert!(update(Rule::Lion(bad), 8, 0).is_err());
    assert!(update(Rule::AdamW(ADAMW), 8, 0).is_err(), "it has one moment");
    assert!(update(good, 7, 0).is_err());
    assert!(update(good, 8, 1).is_err());
    let _: (MatrixState, UpdateStats) = (
        MatrixState::zeros(&cpu, (0, 5), good, MomentCode::Sqrt).unwrap(),
        UpdateStats::zeros(&cpu, 0).unwrap(),
    );
}

#[test]
fn gradients_that_are_not_finite_spoil_nothing_but_the_sum() {
    let cpu = cpu();
    let w = TestRng::new(8).normals(256, 0.02);
    let format =
        HybridFormat { residual: Residual::Bits8, protected_fraction: 0.0, rotated: false };
    for (rule, code) in rules() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut trained = Trained::in_format(&cpu, (1, 256), &w, format, (rule, code));
            let mut grad = vec![1e-3; 256];
            grad[5] = bad;
            trained.step(&cpu, &grad, Step { rule, ..Step::new(1e-4, key(0, 0)) });
            assert!(!trained.stats.sums.host().unwrap()[0].is_finite(), "the caller can see it");
            assert!(trained.weights(&cpu, Precision::Full).iter().all(|w| w.abs() < 0.1));
            for (codes, scales) in trained.planes().moments {
                assert!(scales.iter().all(|scale| scale.to_f32().is_finite()));
                let other = &codes[codes.len() / 2..];
                assert!(other.iter().all(|&code| code != 0), "other blocks are as ever");
            }
        }
    }
}
