//! The f64 reference itself: its gradients against central differences.

mod ops_common;

use ops_common::borders;
use qft_testing::finite_diff::gradient;
use qft_testing::reference::{self, Attention, dot};
use qft_testing::rng::TestRng;
use qft_testing::tolerance::Tolerance;

const STEP: f64 = 1e-5;

/// Third derivatives here are below 100, and sums below 100: 1e-8 of truncation, 1e-9 of rounding.
const DIFFERENCES: Tolerance =
    Tolerance { reason: "error of central differences", absolute: 2e-8, relative: 1e-8 };

fn normals(rng: &mut TestRng, len: usize) -> Vec<f64> {
    (0..len).map(|_| rng.normal()).collect()
}

#[test]
fn rmsnorm() {
    let rng = &mut TestRng::new(1);
    let (x, gain, dy) = (normals(rng, 3 * 7), normals(rng, 7), normals(rng, 3 * 7));
    let (dx, dgain) = reference::rmsnorm_backward(&x, &gain, 1e-5, &dy);
    let loss = |x: &[f64], gain: &[f64]| dot(&reference::rmsnorm(x, gain, 1e-5).0, &dy);
    DIFFERENCES.assert("dx", &dx, &gradient(&x, STEP, |x| loss(x, &gain)));
    DIFFERENCES.assert("dgain", &dgain, &gradient(&gain, STEP, |gain| loss(&x, gain)));
}

#[test]
fn rope() {
    let rng = &mut TestRng::new(2);
    let (positions, inv_freq) = ([0, 5, 1000], [1.0, 0.1, 0.01]);
    // Whole heads, and heads of which the last two channels stay.
    for (heads, size, scale) in [(2, 6, 1.0), (2, 8, 1.2)] {
        let len = 3 * heads * size;
        let (x, dy) = (normals(rng, len), normals(rng, len));
        let turn = |x: &[f64], inverse| {
            reference::rope(x, &positions, &inv_freq, (heads, size), scale, inverse)
        };
        let dx = turn(&dy, true);
        DIFFERENCES.assert("dx", &dx, &gradient(&x, STEP, |x| dot(&turn(x, false), &dy)));
    }
}

#[test]
fn bias() {
    let rng = &mut TestRng::new(5);
    let (y, bias, dy) = (normals(rng, 15), normals(rng, 3), normals(rng, 15));
    let loss = |bias: &[f64]| dot(&reference::add_bias(&y, bias), &dy);
    let dbias = reference::bias_gradient(&dy, 3);
    DIFFERENCES.assert("dbias", &dbias, &gradient(&bias, STEP, loss));
}

#[test]
fn swiglu() {
    let rng = &mut TestRng::new(3);
    let (gate, up, dy) = (normals(rng, 40), normals(rng, 40), normals(rng, 40));
    let (dgate, dup) = reference::swiglu_backward(&dy, &gate, &up);
    let loss = |gate: &[f64], up: &[f64]| dot(&reference::swiglu(gate, up), &dy);
    DIFFERENCES.assert("dgate", &dgate, &gradient(&gate, STEP, |gate| loss(gate, &up)));
    DIFFERENCES.assert("dup", &dup, &gradient(&up, STEP, |up| loss(&gate, up)));
}

#[test]
fn cross_entropy() {
    let rng = &mut TestRng::new(4);
    let (logits, targets) = (normals(rng, 3 * 11), [0, 10, 4]);
    let grad = reference::cross_entropy_backward(&logits, &targets, 0.25);
    let loss = |x: &[f64]| reference::cross_entropy(x, &targets, 0.25);
    DIFFERENCES.assert("dlogits", &grad, &gradient(&logits, STEP, loss));
}

#[test]
fn embedding() {
    let rng = &mut TestRng::new(5);
    let (table, ids, dy) = (normals(rng, 4 * 3), [2, 0, 2, 2], normals(rng, 4 * 3));
    let grad = reference::embedding_backward(&ids, &dy, 4, 3);
    let loss = |table: &[f64]| dot(&reference::embedding(table, &ids, 3), &dy);
    DIFFERENCES.assert("dtable", &grad, &gradient(&table, STEP, loss));
}

#[test]
fn attention() {
    let rng = &mut TestRng::new(6);
    let shape = Attention { borders: borders(&[4, 1, 3]), query: 4, key_value: 2, size: 6 };
    let (wide, narrow) = (8 * 4 * 6, 8 * 2 * 6);
    let (q, k, v) = (normals(rng, wide), normals(rng, narrow), normals(rng, narrow));
    let dout = normals(rng, wide);
    let (dq, dk, dv) = shape.backward((&q, &k, &v), &dout);
    let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&shape.forward(q, k, v).0, &dout);
    DIFFERENCES.assert("dq", &dq, &gradient(&q, STEP, |q| loss(q, &k, &v)));
    DIFFERENCES.assert("dk", &dk, &gradient(&k, STEP, |k| loss(&q, k, &v)));
    DIFFERENCES.assert("dv", &dv, &gradient(&v, STEP, |v| loss(&q, &k, v)));
}
