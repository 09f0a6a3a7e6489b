//! What encoding keeps, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{RESIDUALS, cpu, decode, encode, protected};
use half::bf16;
use proptest::prelude::*;
use qft_quant::encode::EMPTY_SCALE;
use qft_quant::{Error, Precision, Residual};
use qft_tensor::{Isa, Owner};
use qft_testing::rng::TestRng;

/// Half a step of the finest plane, and the float roundings of `F w / s` (a number up to 2^15 with 24 bits, so
/// 2^-10 of a step) and of the way back.
const HALF_STEP: f32 = 0.5 + 0.004;

/// Weights like a trained matrix: normal, and one in a hundred ten times as large.
fn weights(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = TestRng::new(seed);
    let mut w = rng.normals(len, 0.02);
    for w in &mut w {
        if rng.below(100) == 0 {
            *w *= 10.0;
        }
    }
    w
}

fn check(shape: (usize, usize), w: &[f32], residual: Residual, fraction: f64) {
    let cpu = cpu(2, Isa::detect().unwrap());
    let (rows, cols) = shape;
    let what = format!("{shape:?} {residual:?} {fraction}");
    let (weight, report) = encode(&cpu, shape, w, residual, fraction).unwrap();
    let full = decode(&cpu, &weight, 0..rows, Precision::Full);
    let compute = decode(&cpu, &weight, 0..rows, Precision::Compute);
    let scale = weight.scale.host().unwrap();
    let mut is_protected = vec![false; rows * cols];
    for &(n, c, value) in &protected(&weight) {
        is_protected[n * cols + c] = true;
        assert_eq!(
            value,
            bf16::from_f32(w[n * cols + c]).to_f32(),
            "{what}: protected weight [{n}, {c}]"
        );
    }
    let steps = residual.steps() as f32;
    for (i, &w) in w.iter().enumerate() {
        if is_protected[i] {
            assert_eq!(full[i], bf16::from_f32(w).to_f32(), "{what}: protected weight {i}");
            assert_eq!(weight.q.host().unwrap()[i], 0);
        } else {
            let (error, step) = ((w - full[i]).abs(), scale[i / cols]);
            assert!(error <= HALF_STEP * step / steps, "{what}: {w} became {}", full[i]);
            // The high plane is off by the residual too: at most half a step of its own.
            assert!(
                (w - compute[i]).abs() <= HALF_STEP * step * (1.0 + 1.0 / steps),
                "{what}: {i}"
            );
        }
    }
    let wanted = weight.format().protected_count(rows, cols);
    let nonzero = w.iter().filter(|w| **w != 0.0).count();
    assert_eq!(report.protected, wanted.min(nonzero), "{what}");
    let error = |decoded: &[f32]| {
        let squares = w.iter().zip(decoded).map(|(w, d)| (f64::from(*w) - f64::from(*d)).powi(2));
        squares.sum::<f64>().sqrt()
    };
    // The report subtracts in f32 before it squares.
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b + 1e-12;
    assert!(close(report.l2_error, error(&compute)), "{what}: {report:?}");
    let (plain, _) = encode(&cpu, shape, w, residual, 0.0).unwrap();
    let plain = error(&decode(&cpu, &plain, 0..rows, Precision::Compute));
    assert!(close(report.l2_error_unprotected, plain), "{what}: {report:?} {plain}");
    let largest = scale.iter().copied().fold(0.0, f32::max);
    assert_eq!(report.scale_max, largest, "{what}");
    assert!(report.scale_min > 0.0 && report.scale_min <= report.scale_mean, "{what}");
}

#[test]
fn every_format_keeps_half_a_step() {
    for residual in RESIDUALS {
        for fraction in [0.0, 0.001, 0.01] {
            for shape in [(7, 172), (3, 64), (5, 1), (4, 257), (33, 512), (1, 1), (1500, 800)] {
                check(shape, &weights(shape.0 * shape.1, 5), residual, fraction);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
    #[test]
    fn any_matrix_keeps_half_a_step(
        rows in 1usize..6,
        cols in 1usize..400,
        residual in prop::sample::select(&RESIDUALS[..]),
        fraction in 0.0..0.05,
        seed in any::<u64>(),
        exponent in -20i32..10,
    ) {
        let scale = 2f32.powi(exponent);
        let w: Vec<f32> = weights(rows * cols, seed).iter().map(|w| w * scale).collect();
        check((rows, cols), &w, residual, fraction);
    }
}

#[test]
fn the_largest_are_protected_and_protection_pays() {
    let cpu = cpu(2, Isa::detect().unwrap());
    let shape = (64, 1000);
    let mut w = TestRng::new(3).normals(shape.0 * shape.1, 0.02);
    let planted: Vec<usize> = (0..64).map(|i| i * 997).collect();
    for (i, &at) in planted.iter().enumerate() {
        w[at] = 1.0 + i as f32 / 64.0;
    }
    let (weight, report) = encode(&cpu, shape, &w, Residual::Bits8, 0.001).unwrap();
    let found: Vec<usize> = protected(&weight).iter().map(|&(n, c, _)| n * shape.1 + c).collect();
    assert_eq!(found, planted);
    assert!(report.l2_error < 0.1 * report.l2_error_unprotected, "{report:?}");
}

#[test]
fn a_full_block_leaves_its_rest_dense() {
    let cpu = cpu(2, Isa::detect().unwrap());
    // 5 % of 20 x 512 are 512 weights, but all large weights are in the two blocks of row 1.
    let (shape, mut w) = ((20, 512), vec![1e-3; 20 * 512]);
    w[512..1024].fill(1.0);
    let (weight, report) = encode(&cpu, shape, &w, Residual::Bits8, 0.05).unwrap();
    let found = protected(&weight);
    assert!(
        found.iter().all(|&(n, ..)| n == 1),
        "the budget of large weights is not spent on small ones"
    );
    assert_eq!((found.len(), report.protected), (510, 510));
    let decoded = decode(&cpu, &weight, 0..20, Precision::Full);
    assert!((decoded[512 + 255] - 1.0).abs() < 1e-6 && (decoded[1023] - 1.0).abs() < 1e-6);
}

#[test]
fn rows_of_zeros_get_a_scale_that_can_be_trained() {
    let cpu = cpu(1, Isa::detect().unwrap());
    for fraction in [0.0, 0.01] {
        let (shape, mut w) = ((4, 300), weights(1200, 1));
        w[300..600].fill(0.0);
        let (weight, report) = encode(&cpu, shape, &w, Residual::Bits8, fraction).unwrap();
        let scale = weight.scale.host().unwrap();
        let mean = (f64::from(scale[0]) + f64::from(scale[2]) + f64::from(scale[3])) / 3.0;
        assert_eq!(scale[1], mean as f32);
        assert!(decode(&cpu, &weight, 1..2, Precision::Full).iter().all(|&w| w == 0.0));
        assert!(report.scale_min > 0.0);

        let (weight, report) =
            encode(&cpu, shape, &[0.0; 1200], Residual::Bits4, fraction).unwrap();
        assert!(weight.scale.host().unwrap().iter().all(|&scale| scale == EMPTY_SCALE));
        assert_eq!((report.protected, report.l2_error), (0, 0.0));
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    let cpu = cpu(2, Isa::detect().unwrap());
    for fraction in [0.0, 0.01] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut w = weights(3 * 500, 2);
            w[1207] = bad;
            w[1208] = f32::NAN;
            match encode(&cpu, (3, 500), &w, Residual::Bits8, fraction) {
                Err(Error::NotFinite { row: 2, col: 207, value }) => {
                    assert_eq!(value.to_bits(), bad.to_bits());
                }
                other => panic!("expected a refusal of weight [2, 207], got {other:?}"),
            }
        }
    }
    let fraction = encode(&cpu, (1, 1), &[1.0], Residual::None, 0.06);
    assert!(matches!(fraction, Err(Error::ProtectedFraction { .. })));
}

#[test]
fn sizes_are_as_documented() {
    let cpu = cpu(1, Isa::SCALAR);
    let shape = (10, 300);
    for (residual, bytes) in [(Residual::None, 0), (Residual::Bits4, 150), (Residual::Bits8, 300)] {
        let (weight, report) = encode(&cpu, shape, &weights(3000, 1), residual, 0.01).unwrap();
        assert_eq!(weight.residual.as_ref().map_or(0, |r| r.len()), 10 * bytes);
        let protected = weight.protected.as_ref().unwrap();
        assert_eq!((protected.capacity(), report.protected), (30, 30));
        assert_eq!(protected.counts.len(), 10 * 2);
        assert_eq!(protected.row_start.host().unwrap()[10], 30);
        assert_eq!((weight.q.len(), weight.scale.len()), (3000, 10));
        assert_eq!(weight.q.raw().owner(), Owner::Weights);
    }
    let (weight, _) = encode(&cpu, shape, &weights(3000, 1), Residual::None, 0.0).unwrap();
    assert!(weight.protected.is_none() && weight.residual.is_none());
    for shape in [(0, 5), (5, 0), (0, 0)] {
        let (_, report) = encode(&cpu, shape, &[], Residual::Bits8, 0.01).unwrap();
        assert_eq!(report.protected, 0, "{shape:?}");
    }
}
