//! The linear layer where its products have to be cut.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ops_common;

use ops_common::{best, garbage, get, put};
use qft_autograd::layers::linear::PendingGradient;
use qft_autograd::{Activations, Context, Matrix, Products, TensorId};
use qft_quant::{HybridFormat, HybridMatrix, Residual};
use qft_tensor::{MAX_K, Rounding};
use std::sync::Arc;

/// `dy^T x` of `tokens` equal rows, in INT8.
fn gradient(tokens: usize, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let cpu = best();
    let ctx = Context { ops: &cpu, compute: Products::INT8, seed: 1, step: 0, micro_batch: 0 };
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
    pending.multiply(&ctx, 0..n, &mut grad, false).unwrap();
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
