//! The momentum's code: how far a value may be off, and that it is right on average.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{CODES, Step, Trained, cpu, key};
use half::bf16;
use qft_optim::momentum::block_scale;
use qft_optim::{LionConfig, MomentumCode};
use qft_quant::Residual;
use qft_testing::rng::TestRng;

/// Codes `values` (a row) by an update with `beta2 = 0`, whose momentum is the gradient.
fn coded(values: &[f32], code: MomentumCode, seed: u64) -> (Vec<i8>, Vec<bf16>) {
    let (cpu, shape) = (cpu(), (1, values.len()));
    let w = vec![0.1; values.len()];
    let mut trained = Trained::new(&cpu, shape, &w, Residual::None, 0.0, code);
    let config = LionConfig { beta2: 0.0, ..LionConfig::default() };
    trained.step(&cpu, values, Step { config, ..Step::new(0.0, key(seed, 0)) });
    let planes = trained.planes();
    (planes.m, planes.m_scale)
}

fn value(k: i8, scale: bf16, code: MomentumCode) -> f64 {
    let a = f64::from(k) / 127.0;
    f64::from(scale.to_f32()) * if code == MomentumCode::Sqrt { a * a.abs() } else { a }
}

#[test]
fn a_value_becomes_one_of_its_two_neighbours() {
    let mut rng = TestRng::new(1);
    let mut values = rng.normals(500, 1e-3);
    values[3] = 0.0;
    values[130] = 1.0;
    for code in CODES {
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
                MomentumCode::Sqrt => {
                    (2.0 * f64::from(k).abs() + 1.0) / 16_129.0 * f64::from(scale.to_f32())
                }
                MomentumCode::Linear => f64::from(scale.to_f32()) / 127.0,
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
    for code in CODES {
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
            // Two neighbours, at most 2 / 127 of the scale apart: deviation at most half of it.
            let a = f64::from(want.abs()) / scale;
            let gap = match code {
                MomentumCode::Sqrt => (2.0 * a.sqrt() * 127.0 + 1.0) / 16_129.0,
                MomentumCode::Linear => 1.0 / 127.0,
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
    assert_eq!(nonzero(MomentumCode::Sqrt), 128, "1e-4 is more than the first step, 127^-2");
    assert!(nonzero(MomentumCode::Linear) < 20, "1e-4 is an eightieth of the first step, 1/127");
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
