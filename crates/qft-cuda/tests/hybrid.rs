//! Hybrid matrices against the CPU, bit for bit: sums are fused multiply-adds in the same order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{bits, cpu, devices_under_test, upload};
use qft_quant::{
    DecodeRows, Error, HybridFormat, HybridMatrix, HybridOps, Precision, Residual, SparseBackward,
    SparseForward,
};
use qft_tensor::{QMatrix, QuantizeRows, Rounding, ScaleAxis};
use qft_testing::rng::TestRng;
use std::ops::Range;

const RESIDUALS: [Residual; 3] = [Residual::None, Residual::Bits4, Residual::Bits8];

/// Around four weights of a lane, 256 columns of a protected block, 512 of a block of threads, and 2048 of a tile.
const COLS: [usize; 9] = [1, 7, 127, 128, 129, 172, 257, 600, 2100];

/// Weights whose rows are of different sizes, one of zeros, and one with many large ones side by side.
fn weights(rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = TestRng::new((rows * 10_000 + cols) as u64);
    let mut w = rng.normals(rows * cols, 0.02);
    for (r, row) in w.chunks_mut(cols).enumerate() {
        match r % 4 {
            1 => row.fill(0.0),
            2 => row.iter_mut().for_each(|w| *w *= 1e-3),
            3 => row.iter_mut().take(60).for_each(|w| *w *= 100.0),
            _ => {}
        }
    }
    w
}

fn encode(
    on: &dyn HybridOps,
    (rows, cols): (usize, usize),
    residual: Residual,
    protected_fraction: f64,
) -> HybridMatrix {
    let w = weights(rows, cols);
    let format = HybridFormat { residual, protected_fraction, rotated: false };
    let read = &mut |range: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&w[range.start * cols..range.end * cols]);
        Ok::<(), Error>(())
    };
    HybridMatrix::encode(on, (rows, cols), format, read).unwrap().0
}

/// All rows, some of them, the last one, none.
fn ranges(rows: usize) -> [Range<usize>; 4] {
    [0..rows, rows / 3..rows, rows - 1..rows, 0..0]
}

#[test]
fn decoded_rows_equal_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for cols in COLS {
            for residual in RESIDUALS {
                for fraction in [0.0, 0.05] {
                    let rows = 9;
                    for range in ranges(rows) {
                        for (precision, gap) in [(Precision::Compute, 0), (Precision::Full, 3)] {
                            let run = |on: &dyn HybridOps| {
                                let weight = encode(on, (rows, cols), residual, fraction);
                                let stride = cols + gap;
                                let mut out = upload(on, &vec![7.0f32; range.len() * stride]);
                                let view = out.mat_mut(range.len(), stride).unwrap();
                                let view = view.col_range(gap..stride).unwrap();
                                let (weight, rows, out_view) = (&weight, range.clone(), view);
                                let op = DecodeRows { weight, rows, precision, out: out_view };
                                on.decode_rows(op).unwrap();
                                bits(&out.to_vec(on).unwrap())
                            };
                            let case = (cols, residual, fraction, &range, precision);
                            assert!(run(&device) == run(&cpu), "{name}: {case:?}");
                        }
                    }
                }
            }
        }
    }
}

struct Problem {
    tokens: usize,
    shape: (usize, usize),
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
            x: rng.normals(tokens * shape.1, 1.0),
            y: rng.normals(tokens * shape.0, 1.0),
            dx: rng.normals(tokens * shape.1, 1.0),
        }
    }

    fn forward(&self, on: &dyn HybridOps, rows: Range<usize>, fraction: f64) -> Vec<u32> {
        let (tokens, (n, k)) = (self.tokens, self.shape);
        let weight = encode(on, self.shape, Residual::Bits8, fraction);
        let x = upload(on, &self.x);
        let mut quantized =
            QMatrix::alloc(on, qft_tensor::Owner::Workspace, "x", (tokens, k), ScaleAxis::Row)
                .unwrap();
        on.quantize_rows(QuantizeRows {
            x: x.mat(tokens, k).unwrap(),
            fold: None,
            rounding: Rounding::Nearest,
            out: &mut quantized,
        })
        .unwrap();
        let mut y = upload(on, &self.y);
        let view = y.mat_mut(tokens, n).unwrap().col_range(rows.clone()).unwrap();
        on.sparse_forward(SparseForward { x: &quantized, weight: &weight, rows, y: view }).unwrap();
        bits(&y.to_vec(on).unwrap())
    }

    fn backward(&self, on: &dyn HybridOps, rows: Range<usize>, fraction: f64) -> Vec<u32> {
        let (tokens, (n, k)) = (self.tokens, self.shape);
        let weight = encode(on, self.shape, Residual::None, fraction);
        let (y, mut dx) = (upload(on, &self.y), upload(on, &self.dx));
        let shape = (tokens, rows.len());
        let mut dy =
            QMatrix::alloc(on, qft_tensor::Owner::Workspace, "dy", shape, ScaleAxis::Row).unwrap();
        on.quantize_rows(QuantizeRows {
            x: y.mat(tokens, n).unwrap().col_range(rows.clone()).unwrap(),
            fold: Some(weight.scale.span(rows.clone()).unwrap()),
            rounding: Rounding::Nearest,
            out: &mut dy,
        })
        .unwrap();
        let view = dx.mat_mut(tokens, k).unwrap();
        on.sparse_backward(SparseBackward { dy: &dy, weight: &weight, rows, dx: view }).unwrap();
        bits(&dx.to_vec(on).unwrap())
    }
}

#[test]
fn sparse_products_equal_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for (tokens, shape) in [
            (0, (4, 8)),
            (1, (5, 172)),
            (16, (16, 256)),
            (33, (260, 257)),
            (17, (40, 600)),
            (3, (33, 1)),
            (31, (1, 64)),
            (2, (9, 4100)),
            // Several tiles of tokens and columns, aligned and not.
            (130, (64, 512)),
            (131, (37, 390)),
        ] {
            let problem = Problem::new(tokens, shape);
            for rows in ranges(shape.0) {
                for fraction in [0.0, 0.01, 0.05] {
                    let case = (tokens, shape, &rows, fraction);
                    let forward = |on: &dyn HybridOps| problem.forward(on, rows.clone(), fraction);
                    assert!(forward(&device) == forward(&cpu), "{name}: forward {case:?}");
                    let backward =
                        |on: &dyn HybridOps| problem.backward(on, rows.clone(), fraction);
                    assert!(backward(&device) == backward(&cpu), "{name}: backward {case:?}");
                }
            }
        }
    }
}

/// Enough for large blocks on any GPU; the border of each kind of tile, and more protected weights than one list holds.
#[test]
fn sparse_forward_products_of_many_tokens_equal_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for (first_row, shape) in [(0, (1925, 520)), (3, (1930, 301))] {
            let problem = Problem::new(1300, shape);
            let rows = || first_row..shape.0;
            let forward = |on: &dyn HybridOps| problem.forward(on, rows(), 0.01);
            assert!(forward(&device) == forward(&cpu), "{name}: {shape:?}");
        }
    }
}
