//! The codes of moments: how far a value may be off, and that it is right on average.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{ADAMW, Step, Trained, cpu, key};
use half::bf16;
use qft_optim::moment::block_scale;
use qft_optim::{LionConfig, MomentCode, Rule};
use qft_quant::{HybridFormat, Residual};
use qft_testing::rng::TestRng;

/// A row of zeros in INT8, and its momentum in a code.
fn row(cols: usize, code: MomentCode) -> Trained {
    Trained::new(&cpu(), (1, cols), &vec![0.1; cols], Residual::None, 0.0, code)
}

/// The rule whose momentum is the gradient.
fn forgetful() -> Rule {
    Rule::Lion(LionConfig { beta2: 0.0, ..LionConfig::default() })
}

/// Codes `values` (a row) as a momentum.
fn coded(values: &[f32], code: MomentCode, seed: u64) -> (Vec<i8>, Vec<bf16>) {
    let mut trained = row(values.len(), code);
    trained.step(&cpu(), values, Step { rule: forgetful(), ..Step::new(0.0, key(seed, 0)) });
    trained.planes().moments.remove(0)
}

fn value(k: i8, scale: bf16, code: MomentCode) -> f64 {
    let a = f64::from(k) / 127.0;
    f64::from(scale.to_f32()) * if code == MomentCode::Sqrt { a * a.abs() } else { a }
}

#[test]
fn a_value_becomes_one_of_its_two_neighbours() {
    let mut rng = TestRng::new(1);
    let mut values = rng.normals(500, 1e-3);
    values[3] = 0.0;
    values[130] = 1.0;
    for code in [MomentCode::Sqrt, MomentCode::Linear] {
        let (m, scale) = coded(&values, code, 7);
        for (i, (&want, &k)) in values.iter().zip(&m).enumerate() {
            let scale = scale[i / 128];
            // Rounding up to 8 bits of mantissa makes a scale at most 2^-7 larger.
            let block = &values[i / 128 * 128..((i / 128 + 1) * 128).min(500)];
            let max = block.iter().fold(0.0f32, |max, v| max.max(v.abs()));
            assert!(scale.to_f32() >= max && scale.to_f32() <= max * (1.0 + 1.0 / 128.0));
            let got = value(k, scale, code);
            let gap = match code {
                // Between (k / 127)^2 and ((k + 1) / 127)^2: the gap at the upper neighbour.
                MomentCode::Sqrt => {
                    (2.0 * f64::from(k).abs() + 1.0) / 16_129.0 * f64::from(scale.to_f32())
                }
                _ => f64::from(scale.to_f32()) / 127.0,
            };
            let error = (got - f64::from(want)).abs();
            assert!(error <= gap * (1.0 + 1e-5), "{code:?}: {want} became {got} at {i}");
            assert!(want != 0.0 || k == 0);
        }
    }
}

#[test]
fn rounding_is_right_on_average() {
    let values: Vec<f32> = (0..128).map(|i| (i as f32 / 127.0).powi(3) - 0.2).collect();
    for code in [MomentCode::Sqrt, MomentCode::Linear] {
        let trials = 400;
        let mut sums = vec![0.0; values.len()];
        let mut scale = 0.0;
        for seed in 0..trials {
            let (m, scales) = coded(&values, code, seed);
            scale = f64::from(scales[0].to_f32());
            for (sum, &k) in sums.iter_mut().zip(&m) {
                *sum += value(k, scales[0], code);
            }
        }
        for (sum, &want) in sums.iter().zip(&values) {
            let mean = sum / trials as f64;
            // Two neighbours: deviation at most half of what they are apart.
            let a = f64::from(want.abs()) / scale;
            let gap = match code {
                MomentCode::Sqrt => (2.0 * a.sqrt() * 127.0 + 1.0) / 16_129.0,
                _ => 1.0 / 127.0,
            };
            let bound = 5.0 * 0.5 * gap * scale / (trials as f64).sqrt();
            assert!(
                (mean - f64::from(want)).abs() < bound,
                "{code:?}: {want} is {mean} on average"
            );
        }
    }
}

#[test]
fn small_values_survive_beside_large_ones_in_the_square_root_code() {
    let mut values = vec![1e-4; 128];
    values[0] = 1.0;
    let nonzero = |code| coded(&values, code, 1).0.iter().filter(|&&k| k != 0).count();
    assert_eq!(nonzero(MomentCode::Sqrt), 128, "1e-4 is more than the first step, 127^-2");
    assert!(nonzero(MomentCode::Linear) < 20, "1e-4 is an eightieth of the first step, 1/127");
}

#[test]
fn block_scales_round_up() {
    for (max, want) in [
        (0.0, 0.0),
        (1e-31, 0.0),
        (1.0, 1.0),
        (1.0 + f32::EPSILON, 1.0078125),
        (f32::MAX, bf16::MAX.to_f32()),
        (f32::INFINITY, bf16::MAX.to_f32()),
    ] {
        assert_eq!(block_scale(max).to_f32(), want, "{max}");
    }
}

/// The distance of two codes of four bits around `value`, and the most that they stand for.
fn gap_of_halves(value: f64, scale: f64) -> f64 {
    let root = 7.5 * (value.abs() / scale).sqrt();
    (2.0 * (root + 0.5).floor().max(0.5)) / 56.25 * scale
}

#[test]
fn four_bits_keep_signs_and_reach_two_and_a_half_deviations() {
    let mut values = TestRng::new(3).normals(300, 1e-3);
    values[7] = -0.5;
    let mut trained = row(300, MomentCode::Sqrt4);
    trained.step(&cpu(), &values, Step { rule: forgetful(), ..Step::new(0.0, key(1, 0)) });
    let got = trained.state.first.row(&cpu(), 0).unwrap();
    let scales = &trained.planes().moments[0].1;
    for (i, (&want, &got)) in values.iter().zip(&got).enumerate() {
        let block = &values[i / 128 * 128..((i / 128 + 1) * 128).min(300)];
        let squares: f64 = block.iter().map(|&x| f64::from(x).powi(2)).sum();
        let max = block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let reach = f64::from(max).min(2.5 * (squares / block.len() as f64).sqrt());
        let scale = f64::from(scales[i / 128].to_f32());
        assert!(scale >= 0.999_999 * reach && scale <= reach * (1.0 + 1.0 / 127.0));
        let (want, got) = (f64::from(want), f64::from(got));
        if want.abs() > scale {
            assert!((got - scale * want.signum()).abs() < 1e-5 * scale, "{want} became {got}");
        } else {
            let gap = gap_of_halves(want, scale);
            assert!((got - want).abs() <= 1.001 * gap, "{want} became {got}, the gap is {gap}");
        }
        assert!(want.abs() < 0.01 * scale || got * want > 0.0, "{want} became {got}");
    }
}

/// In 8 bits at random, and in 4 bits evenly over the steps: how far a momentum of a gradient that stays is off.
#[test]
fn errors_of_dithered_codes_do_not_add_up() {
    let (cols, steps) = (1280, 400);
    let grad = TestRng::new(5).normals(cols, 1e-3);
    let cpu = cpu();
    let mut trained = row(cols, MomentCode::Sqrt4);
    for step in 0..steps {
        trained.step(&cpu, &grad, Step::new(0.0, key(2, step)));
    }
    let got = trained.state.first.row(&cpu, 0).unwrap();
    let scales = &trained.planes().moments[0].1;
    let (mut squares, mut sum, mut count) = (0.0, 0.0, 0.0);
    for (i, (&want, &got)) in grad.iter().zip(&got).enumerate() {
        let (want, scale) = (f64::from(want), f64::from(scales[i / 128].to_f32()));
        if want.abs() < 0.9 * scale {
            let error = (f64::from(got) - want) / gap_of_halves(want, scale);
            (squares, sum, count) = (squares + error * error, sum + error, count + 1.0);
        }
    }
    let (deviation, mean) = ((squares / count).sqrt(), sum / count);
    println!("in gaps of the codes: deviation {deviation:.3}, mean {mean:.3}");
    // Drawn anew in every step, errors of 0.4 gaps would add up to five times that, with beta2 = 0.98.
    assert!(deviation < 0.9, "{deviation}");
    assert!(mean.abs() < 0.1, "{mean}");
}

/// A second moment that is remembered for a thousand steps, and codes that are 4 % apart.
#[test]
fn a_second_moment_is_never_zero_and_stays_near() {
    let (cols, steps) = (256, 600);
    let mut grad = TestRng::new(6).normals(cols, 1e-3);
    grad[17] = 1e-7;
    let cpu = cpu();
    let format = HybridFormat { residual: Residual::None, protected_fraction: 0.0, rotated: false };
    let rule = Rule::AdamW(ADAMW);
    let w = vec![0.1; cols];
    let state = (rule, MomentCode::Sqrt);
    let mut trained = Trained::in_format(&cpu, (1, cols), &w, format, state);
    for step in 0..steps {
        trained.step(&cpu, &grad, Step { rule, ..Step::new(0.0, key(2, step)) });
    }
    let got = trained.state.second.as_ref().unwrap().row(&cpu, 0).unwrap();
    let weight = 1.0 - 0.999f64.powi(steps as i32);
    for (&g, &v) in grad.iter().zip(&got) {
        let want = weight * f64::from(g).powi(2);
        assert!(v > 0.0);
        // Root of a second moment, by what it should be; of the smallest gradients codes are further apart.
        let ratio = (f64::from(v) / want).sqrt();
        assert!(g.abs() < 1e-4 || (ratio - 1.0).abs() < 0.1, "{g}: {ratio}");
    }
}
