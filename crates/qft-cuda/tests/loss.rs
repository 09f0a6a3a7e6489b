//! Cross-entropy over blocks of the vocabulary against the CPU, bit for bit, and against f64.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{alloc, bits, cpu, devices_under_test, upload};
use qft_autograd::LayerOps;
use qft_autograd::ops::{LossGradient, LossStats};
use qft_testing::reference::{self, widen};
use qft_testing::rng::TestRng;
use qft_testing::tolerance::Tolerance;

/// Logits `[rows, vocab]` in blocks of `block` columns.
struct Case {
    rows: usize,
    vocab: usize,
    block: usize,
    logits: Vec<f32>,
    targets: Vec<u32>,
}

/// What came of a case.
struct Outcome {
    max: Vec<f32>,
    sum: Vec<f32>,
    target_logit: Vec<f32>,
    gradient: Vec<f32>,
}

impl Case {
    fn new(seed: u64, (rows, vocab, block): (usize, usize, usize)) -> Self {
        let mut rng = TestRng::new(seed);
        let mut logits = rng.normals(rows * vocab, 4.0);
        // A row of large logits, and one whose probabilities mostly vanish.
        logits[..vocab].iter_mut().for_each(|x| *x += 3e4);
        let last = logits.len() - 1;
        logits[last] += 200.0;
        let mut targets: Vec<u32> = (0..rows).map(|_| rng.below(vocab) as u32).collect();
        targets[rows - 1] = vocab as u32 - 1;
        Self { rows, vocab, block, logits, targets }
    }

    fn weight(&self) -> f32 {
        1.0 / self.rows as f32
    }

    fn part(&self, start: usize) -> (usize, Vec<f32>) {
        let cols = start..(start + self.block).min(self.vocab);
        let part = self.logits.chunks(self.vocab).flat_map(|row| row[cols.clone()].to_vec());
        (cols.len(), part.collect())
    }

    fn run(&self, ops: &dyn LayerOps) -> Outcome {
        let targets = &upload(ops, &self.targets);
        let [mut max, mut sum, mut target_logit] = [(); 3].map(|()| alloc(ops, self.rows));
        for start in (0..self.vocab).step_by(self.block) {
            let (cols, part) = self.part(start);
            ops.loss_stats(LossStats {
                logits: &upload(ops, &part),
                start,
                cols,
                targets,
                max: &mut max,
                sum: &mut sum,
                target_logit: &mut target_logit,
            })
            .unwrap();
        }
        let mut gradient = vec![0.0; self.logits.len()];
        for start in (0..self.vocab).step_by(self.block) {
            let (cols, part) = self.part(start);
            let mut logits = upload(ops, &part);
            ops.loss_gradient(LossGradient {
                logits: &mut logits,
                start,
                cols,
                targets,
                max: &max,
                sum: &sum,
                weight: self.weight(),
            })
            .unwrap();
            let part = logits.to_vec(ops).unwrap();
            for (row, part) in gradient.chunks_mut(self.vocab).zip(part.chunks(cols)) {
                row[start..start + cols].copy_from_slice(part);
            }
        }
        let [max, sum, target_logit] =
            [max, sum, target_logit].map(|buffer| buffer.to_vec(ops).unwrap());
        Outcome { max, sum, target_logit, gradient }
    }
}

#[test]
fn equals_the_cpu_and_the_reference() {
    // One of each; blocks that do not divide the vocabulary; blocks longer than a tile of shared memory.
    let shapes = [(1, 1, 1), (3, 10, 3), (17, 100, 33), (4, 1000, 257), (2, 5000, 4100)];
    for (seed, &shape) in shapes.iter().enumerate() {
        let case = Case::new(seed as u64, shape);
        let want = case.run(&cpu());
        let weight = f64::from(case.weight());
        for (name, device) in devices_under_test() {
            let got = case.run(&device);
            for (part, got, want) in [
                ("max", &got.max, &want.max),
                ("sum", &got.sum, &want.sum),
                ("target logit", &got.target_logit, &want.target_logit),
                ("gradient", &got.gradient, &want.gradient),
            ] {
                assert_eq!(bits(got), bits(want), "{part} of {shape:?} on {name}");
            }
            let gradient =
                reference::cross_entropy_backward(&widen(&case.logits), &case.targets, weight);
            Tolerance::roundings("exp, a sum, a quotient", 16.0, weight).assert(
                &format!("gradient of {shape:?} on {name}"),
                &got.gradient,
                &gradient,
            );
        }
    }
}

#[test]
fn rows_without_a_finite_logit_do_as_on_the_cpu() {
    let mut case = Case::new(7, (4, 300, 200));
    case.logits[..300].fill(f32::NEG_INFINITY);
    case.logits[300..600].fill(f32::NAN);
    case.logits[700] = f32::INFINITY;
    case.logits[1000] = f32::NAN;
    let want = case.run(&cpu());
    for (name, device) in devices_under_test() {
        let got = case.run(&device);
        for (got, want) in
            [(&got.max, &want.max), (&got.sum, &want.sum), (&got.gradient, &want.gradient)]
        {
            let same =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(got.iter().zip(want).all(same), "{name}");
        }
    }
}

#[test]
fn a_target_beyond_the_vocabulary_touches_nothing() {
    let mut case = Case::new(8, (3, 50, 20));
    case.targets = vec![u32::MAX, 50, 7];
    let want = case.run(&cpu());
    for (name, device) in devices_under_test() {
        let got = case.run(&device);
        assert_eq!(bits(&got.gradient), bits(&want.gradient), "{name}");
        assert_eq!(bits(&got.target_logit), bits(&want.target_logit), "{name}");
    }
}
