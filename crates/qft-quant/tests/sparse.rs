//! Products with protected weights against dense ones, and every path against every other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{RESIDUALS, cpu, decode, encode, protected};
use qft_quant::{HybridMatrix, HybridOps, Precision, Residual, SparseBackward, SparseForward};
use qft_tensor::{
    Buffer, Cpu, Isa, Owner, QMatrix, QuantizeOps, QuantizeRows, Rounding, ScaleAxis,
};
use qft_testing::rng::TestRng;
use std::ops::Range;

struct Problem {
    tokens: usize,
    shape: (usize, usize),
    w: Vec<f32>,
    x: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
}

impl Problem {
    fn new(tokens: usize, shape: (usize, usize)) -> Self {
        let mut rng = TestRng::new((tokens * 1000 + shape.1) as u64);
        Self {
            tokens,
            shape,
            w: rng.normals(shape.0 * shape.1, 0.02),
            x: rng.normals(tokens * shape.1, 1.0),
            y: rng.normals(tokens * shape.0, 1.0),
            dx: rng.normals(tokens * shape.1, 1.0),
        }
    }

    fn weight(&self, cpu: &Cpu, fraction: f64) -> HybridMatrix {
        encode(cpu, self.shape, &self.w, Residual::Bits8, fraction).unwrap().0
    }

    /// The input in INT8.
    fn quantized(&self, cpu: &Cpu) -> QMatrix {
        let (tokens, cols) = (self.tokens, self.shape.1);
        let x = Buffer::from_host(cpu, Owner::Workspace, "x", &self.x).unwrap();
        let shape = (tokens, cols);
        let mut out = QMatrix::alloc(cpu, Owner::Workspace, "x", shape, ScaleAxis::Row).unwrap();
        let x = x.mat(tokens, cols).unwrap();
        let op = QuantizeRows { x, fold: None, rounding: Rounding::Nearest, out: &mut out };
        cpu.quantize_rows(op).unwrap();
        out
    }

    fn forward(&self, cpu: &Cpu, weight: &HybridMatrix, rows: Range<usize>) -> Vec<f32> {
        let (x, count) = (self.quantized(cpu), rows.len());
        let start: Vec<f32> =
            self.y.chunks(self.shape.0).flat_map(|y| y[rows.clone()].to_vec()).collect();
        let mut y = Buffer::from_host(cpu, Owner::Workspace, "y", &start).unwrap();
        let view = y.mat_mut(self.tokens, count).unwrap();
        cpu.sparse_forward(SparseForward { x: &x, weight, rows, y: view }).unwrap();
        y.to_vec(cpu).unwrap()
    }

    /// The gradient of some rows in INT8, with the scales of the matrix folded in.
    fn gradient(&self, cpu: &Cpu, weight: &HybridMatrix, rows: Range<usize>) -> QMatrix {
        let (tokens, n) = (self.tokens, self.shape.0);
        let dy = Buffer::from_host(cpu, Owner::Workspace, "dy", &self.y).unwrap();
        let shape = (tokens, rows.len());
        let mut out = QMatrix::alloc(cpu, Owner::Workspace, "dy", shape, ScaleAxis::Row).unwrap();
        let x = dy.mat(tokens, n).unwrap().col_range(rows.clone()).unwrap();
        let fold = Some(weight.scale.span(rows).unwrap());
        let op = QuantizeRows { x, fold, rounding: Rounding::Nearest, out: &mut out };
        cpu.quantize_rows(op).unwrap();
        out
    }

    fn backward(&self, cpu: &Cpu, weight: &HybridMatrix, rows: Range<usize>) -> Vec<f32> {
        let (tokens, cols) = (self.tokens, self.shape.1);
        let dy = self.gradient(cpu, weight, rows.clone());
        // Columns of a wider matrix, whose first one must stay.
        let wider: Vec<f32> = self.dx.chunks(cols).flat_map(|dx| [&[7.0], dx].concat()).collect();
        let mut dx = Buffer::from_host(cpu, Owner::Workspace, "dx", &wider).unwrap();
        let view = dx.mat_mut(tokens, cols + 1).unwrap().col_range(1..cols + 1).unwrap();
        cpu.sparse_backward(SparseBackward { dy: &dy, weight, rows, dx: view }).unwrap();
        let dx = dx.to_vec(cpu).unwrap();
        assert!(dx.chunks(cols + 1).all(|dx| dx[0] == 7.0));
        dx.chunks(cols + 1).flat_map(|dx| dx[1..].to_vec()).collect()
    }
}

/// Sums of some hundred terms of magnitude 1 in f32: each is off by some 2^-24 of the largest partial sum.
const SUM_ERROR: f64 = 2e-5;

const PROBLEMS: [(usize, (usize, usize)); 6] = [
    (1, (5, 172)),
    (64, (16, 256)),
    (65, (17, 257)),
    (130, (40, 600)),
    (3, (33, 1)),
    (31, (1, 64)),
];

#[test]
fn products_are_those_of_a_dense_matrix() {
    let cpu = cpu(2, Isa::detect().unwrap());
    for (tokens, shape) in PROBLEMS {
        let problem = Problem::new(tokens, shape);
        let weight = problem.weight(&cpu, 0.05);
        let (n, k) = shape;
        let mut dense = vec![0.0f64; n * k];
        for (row, col, value) in protected(&weight) {
            dense[row * k + col] = f64::from(value);
        }
        let (x, x_scale) = {
            let x = problem.quantized(&cpu);
            (x.q.to_vec(&cpu).unwrap(), x.scale.to_vec(&cpu).unwrap())
        };
        for rows in [0..n, n / 3..n, 0..0] {
            let y = problem.forward(&cpu, &weight, rows.clone());
            let dx = problem.backward(&cpu, &weight, rows.clone());
            let dy = problem.gradient(&cpu, &weight, rows.clone());
            let (dy, dy_scale) = (dy.q.to_vec(&cpu).unwrap(), dy.scale.to_vec(&cpu).unwrap());
            let scale = weight.scale.to_vec(&cpu).unwrap();
            for t in 0..tokens {
                for (i, row) in rows.clone().enumerate() {
                    let sum: f64 =
                        (0..k).map(|c| f64::from(x[t * k + c]) * dense[row * k + c]).sum();
                    let want = f64::from(problem.y[t * n + row]) + f64::from(x_scale[t]) * sum;
                    let got = f64::from(y[t * rows.len() + i]);
                    assert!((got - want).abs() < SUM_ERROR, "y {shape:?} {t} {row}: {got} {want}");
                }
                for c in 0..k {
                    let sum: f64 = (rows.clone().enumerate())
                        .map(|(i, row)| {
                            let dy = f64::from(dy[t * rows.len() + i]);
                            dy * dense[row * k + c] / f64::from(scale[row])
                        })
                        .sum();
                    let want = f64::from(problem.dx[t * k + c]) + f64::from(dy_scale[t]) * sum;
                    let got = f64::from(dx[t * k + c]);
                    assert!((got - want).abs() < SUM_ERROR, "dx {shape:?} {t} {c}: {got} {want}");
                }
            }
        }
    }
}

/// Rows whose dense part is zero, or tiny: the gradient of their protected weights is read with steps that fit it.
#[test]
fn protected_weights_of_rows_without_a_dense_part_get_their_gradient() {
    let cpu = cpu(1, Isa::detect().unwrap());
    for rest in [0.0, 1e-38, 1e-33, 1e-9] {
        let mut problem = Problem::new(5, (3, 100));
        problem.w.fill(rest);
        // The last row is of another size than the others.
        for (at, w) in [(7, 2.0), (110, -1.0), (199, 3.0), (250, 0.5)] {
            problem.w[at] = w;
        }
        problem.dx.fill(0.0);
        let weight = problem.weight(&cpu, 0.0134);
        assert_eq!(protected(&weight).len(), 4, "{rest}");
        let dx = problem.backward(&cpu, &weight, 0..3);
        let scale = weight.scale.to_vec(&cpu).unwrap();
        for t in 0..5 {
            let dy = &problem.y[t * 3..][..3];
            // Half a step of the gradient, in which a row counts by its scale; f32 is exact beside that.
            let step =
                dy.iter().zip(&scale).map(|(dy, s)| (dy * s).abs()).fold(0.0, f32::max) / 127.0;
            for (row, col, value) in protected(&weight) {
                let (got, want) = (dx[t * 100 + col], dy[row] * value);
                let bound = 0.501 * step / scale[row] * value.abs();
                assert!((got - want).abs() <= bound, "{rest}: {t} {row}: {got} {want}");
                // 1/16 of the smallest protected weight, as 127 steps.
                assert!(scale[row] >= 0.5 / 16.0 / 127.0, "{rest}: {row}");
            }
        }
    }
}

#[test]
fn a_scale_of_zero_adds_nothing() {
    let cpu = cpu(1, Isa::detect().unwrap());
    let problem = Problem::new(9, (8, 100));
    let mut weight = problem.weight(&cpu, 0.05);
    weight.scale.host_mut().unwrap().fill(0.0);
    assert_eq!(problem.backward(&cpu, &weight, 0..8), problem.dx);
}

#[test]
fn a_gradient_must_have_a_scale_per_row() {
    let cpu = cpu(1, Isa::detect().unwrap());
    let problem = Problem::new(9, (8, 100));
    let weight = problem.weight(&cpu, 0.05);
    let dy = QMatrix::alloc(&cpu, Owner::Workspace, "dy", (9, 8), ScaleAxis::Column).unwrap();
    let mut dx = Buffer::zeros(&cpu, Owner::Workspace, "dx", 900).unwrap();
    let dx = dx.mat_mut(9, 100).unwrap();
    let op = SparseBackward { dy: &dy, weight: &weight, rows: 0..8, dx };
    assert!(cpu.sparse_backward(op).unwrap_err().to_string().contains("one scale per row of dy"));
}

#[test]
fn no_protected_weights_change_nothing() {
    let cpu = cpu(1, Isa::detect().unwrap());
    let problem = Problem::new(9, (8, 100));
    let weight = problem.weight(&cpu, 0.0);
    assert_eq!(problem.forward(&cpu, &weight, 0..8), problem.y);
    assert_eq!(problem.backward(&cpu, &weight, 0..8), problem.dx);
}

#[test]
fn every_isa_and_thread_count_gives_the_same_bits() {
    let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for (tokens, shape) in PROBLEMS {
        let problem = Problem::new(tokens, shape);
        let mut want = None;
        for isa in Isa::available() {
            for threads in [1, 2] {
                let cpu = cpu(threads, isa);
                let mut got = Vec::new();
                for residual in RESIDUALS {
                    let (weight, report) = encode(&cpu, shape, &problem.w, residual, 0.03).unwrap();
                    got.push((report.l2_error, weight.q.to_vec(&cpu).unwrap()));
                    for precision in [Precision::Compute, Precision::Full] {
                        got.push((
                            0.0,
                            decode(&cpu, &weight, 0..shape.0, precision)
                                .iter()
                                .flat_map(|w| w.to_bits().to_le_bytes().map(|b| b as i8))
                                .collect(),
                        ));
                    }
                }
                let weight = problem.weight(&cpu, 0.05);
                let y = bits(problem.forward(&cpu, &weight, 0..shape.0));
                let dx = bits(problem.backward(&cpu, &weight, 0..shape.0));
                let got = (got, y, dx);
                println!("{shape:?} on {cpu:?}");
                assert!(*want.get_or_insert_with(|| got.clone()) == got, "{shape:?} {cpu:?}");
            }
        }
    }
}
