//! The linear layer where its products have to be cut.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ops_common;

use ops_common::{best, garbage, get, put};
use qft_autograd::layers::linear::{self, GradientOut, PendingGradient};
use qft_autograd::{
    Activations, Context, Error, GradientSink, Matrix, Outlet, Products, TensorId, Vector,
};
use qft_quant::{HybridFormat, HybridMatrix, Residual};
use qft_tensor::{Buffer, Cpu, MAX_K, Rounding};
use qft_testing::rng::TestRng;
use std::ops::Range;
use std::sync::Arc;

/// `dy^T x` of `tokens` equal rows, in INT8.
fn gradient(tokens: usize, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let cpu = best();
    let ctx = Context {
        ops: &cpu,
        compute: Products::INT8,
        seed: 1,
        step: 0,
        micro_batch: 0,
        micro_batches: 1,
    };
    let (k, n) = (x.len(), dy.len());
    let x = put(&cpu, &x.repeat(tokens));
    let x = Arc::new(Activations::quantize(&cpu, "x", &x, (tokens, k), false).unwrap());
    let dy = put(&cpu, &dy.repeat(tokens));
    let format = HybridFormat { residual: Residual::None, protected_fraction: 0.0, rotated: false };
    let read = &mut |_, rows: &mut [f32]| {
        rows.fill(1.0);
        Ok::<_, qft_quant::Error>(())
    };
    let (w, _) = HybridMatrix::encode(&cpu, (n, k), format, read).unwrap();
    let w = Matrix::hybrid(TensorId(0), "w", w);
    let pending = PendingGradient::new(&ctx, &w, &x, &dy, n, Rounding::Nearest).unwrap();
    let mut grad = garbage(&cpu, n * k);
    pending.multiply(&ctx, 0..n, GradientOut::Floats(&mut grad)).unwrap();
    get(&grad)
}

/// All codes are 127 or so, which 32 bits hold for fewer tokens only.
#[test]
fn a_gradient_is_summed_over_any_number_of_tokens() {
    let (x, dy) = ([1.0, 0.5, -1.0], [2.0, -0.5]);
    for tokens in [0, 1, MAX_K, MAX_K + 9000] {
        let got = gradient(tokens, &x, &dy);
        for (i, got) in got.into_iter().enumerate() {
            let expected = tokens as f32 * dy[i / x.len()] * x[i % x.len()];
            // Half a step of the codes.
            let apart = 0.01 * expected.abs();
            assert!((got - expected).abs() <= apart, "{tokens}: {i}: {got}, not {expected}");
        }
    }
}

/// Keeps the gradient of a matrix.
struct Keep(Vec<f32>);

impl GradientSink for Keep {
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        self.0.extend_from_slice(&get(grad)[..rows.len() * matrix.cols()]);
        Ok(())
    }

    fn vector(&mut self, _: &mut Vector, _: &Buffer<f32>) -> Result<(), Error> {
        unreachable!("there is a matrix alone")
    }
}

/// A weight matrix of ones, `[n, k]`, in INT8.
fn ones(cpu: &Cpu, (n, k): (usize, usize)) -> Matrix {
    let format = HybridFormat { residual: Residual::None, protected_fraction: 0.0, rotated: false };
    let read = &mut |_, rows: &mut [f32]| {
        rows.fill(1.0);
        Ok::<_, qft_quant::Error>(())
    };
    let (weight, _) = HybridMatrix::encode(cpu, (n, k), format, read).unwrap();
    Matrix::hybrid(TensorId(0), "w", weight)
}

/// The gradient that shares of micro-batches add up to in this order, and each share alone.
fn summed(order: &[usize], compute: Products) -> (Vec<f32>, Vec<Vec<f32>>) {
    let (cpu, (n, k)) = (best(), (37, 29));
    let mut w = ones(&cpu, (n, k));
    let (mut pending, mut alone) = (Vec::new(), Vec::new());
    let micro_batches = order.len();
    let at =
        |micro_batch| Context { ops: &cpu, compute, seed: 1, step: 0, micro_batch, micro_batches };
    for &number in order {
        // Of very different sizes, and lengths.
        let (mut rng, tokens) = (TestRng::new(number as u64), 5 + 40 * number);
        let x = put(&cpu, &rng.normals(tokens * k, 1.0));
        let x = Arc::new(Activations::quantize(&cpu, "x", &x, (tokens, k), false).unwrap());
        let dy = put(&cpu, &rng.normals(tokens * n, 0.01f64.powi(number as i32)));
        let share = PendingGradient::new(&at(number), &w, &x, &dy, n, Rounding::Nearest).unwrap();
        let mut grad = garbage(&cpu, n * k);
        share.multiply(&at(number), 0..n, GradientOut::Floats(&mut grad)).unwrap();
        alone.push(get(&grad));
        pending.push(share);
    }
    let mut sink = Keep(Vec::new());
    linear::flush(&at(0), &mut w, &mut pending, &mut Outlet::new(&mut sink)).unwrap();
    (sink.0, alone)
}

#[test]
fn the_order_of_micro_batches_does_not_matter() {
    for compute in [Products::INT8, Products::FLOAT] {
        let (sum, alone) = summed(&[0, 1, 2, 3], compute);
        for order in [[3, 2, 1, 0], [2, 0, 3, 1]] {
            assert!(summed(&order, compute).0 == sum, "{compute:?} {order:?}");
        }
        for row in 0..37 {
            let of_row = |values: &[f32]| values[row * 29..(row + 1) * 29].to_vec();
            let shares: Vec<_> = alone.iter().map(|share| of_row(share)).collect();
            let largest = shares.iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
            for (col, got) in of_row(&sum).into_iter().enumerate() {
                let exact: f64 = shares.iter().map(|share| f64::from(share[col])).sum();
                let apart = (f64::from(got) - exact).abs();
                // A million times finer than what INT8 tells of the row.
                assert!(apart <= 1e-6 * f64::from(largest), "{compute:?} {row} {col}: {apart}");
            }
        }
    }
}
