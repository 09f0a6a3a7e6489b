//! Rotated rows: the operations give the bits of the definition, everywhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_tensor::rotation::{RotateRows, rotate};
use qft_tensor::{
    Buffer, Cpu, CpuConfig, Isa, Owner, QMatrix, QuantizeOps, QuantizeRows, Rounding, ScaleAxis,
};
use qft_testing::rng::TestRng;

/// `[rows, cols]`: whole groups of 64, of 16, of 4, and what none of them divides.
const SHAPES: &[(usize, usize)] =
    &[(0, 64), (1, 1), (3, 3), (9, 4), (40, 16), (7, 64), (33, 172), (65, 191), (2, 4099)];

fn cpus() -> impl Iterator<Item = Cpu> {
    let new = |isa, threads| Cpu::new(CpuConfig { threads, isa }).unwrap();
    Isa::available().into_iter().flat_map(move |isa| [new(isa, 1), new(isa, 2)])
}

fn rotated(x: &[f32], cols: usize) -> Vec<f32> {
    let mut x = x.to_vec();
    x.chunks_exact_mut(cols).for_each(rotate);
    x
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn rows_of_a_wider_matrix_are_rotated_and_nothing_else() {
    const GAP: usize = 5;
    for &(rows, cols) in SHAPES {
        let stored = TestRng::new(7).normals(rows * (cols + GAP), 1.0);
        let mut want = stored.clone();
        want.chunks_exact_mut(cols + GAP).for_each(|row| rotate(&mut row[2..2 + cols]));
        for cpu in cpus() {
            let mut x = Buffer::from_host(&cpu, Owner::Workspace, "x", &stored).unwrap();
            let all = x.mat_mut(rows, cols + GAP).unwrap();
            cpu.rotate_rows(RotateRows { x: all.col_range(2..2 + cols).unwrap() }).unwrap();
            assert_eq!(bits(x.host().unwrap()), bits(&want), "[{rows}, {cols}]: {cpu:?}");
        }
    }
}

fn quantize(cpu: &Cpu, x: &[f32], shape: (usize, usize), rotated: bool) -> (Vec<i8>, Vec<u32>) {
    let x = Buffer::from_host(cpu, Owner::Workspace, "x", x).unwrap();
    let out = QMatrix::alloc(cpu, Owner::Workspace, "q", shape, ScaleAxis::Row).unwrap();
    let mut out = out.with_rotation(rotated);
    let x = x.mat(shape.0, shape.1).unwrap();
    let op = QuantizeRows { x, fold: None, rounding: Rounding::Nearest, out: &mut out };
    cpu.quantize_rows(op).unwrap();
    (out.q.host().unwrap().to_vec(), bits(out.scale.host().unwrap()))
}

#[test]
fn rotated_rows_are_quantized_as_if_they_had_been_rotated_before() {
    for &(rows, cols) in SHAPES {
        let x = TestRng::new(8).normals(rows * cols, 3.0);
        let before = rotated(&x, cols);
        for cpu in cpus() {
            let want = quantize(&cpu, &before, (rows, cols), false);
            assert_eq!(quantize(&cpu, &x, (rows, cols), true), want, "[{rows}, {cols}]: {cpu:?}");
        }
    }
}

/// A channel of fifty times the others takes the levels of all of them, unless rows are rotated.
#[test]
fn a_large_channel_costs_the_others_little() {
    let (rows, cols) = (16, 576);
    let mut x = TestRng::new(9).normals(rows * cols, 1.0);
    x.chunks_exact_mut(cols).for_each(|row| row[100] = 50.0);
    let cpu = cpus().next().unwrap();
    let error = |rotated: bool| {
        let (q, scales) = quantize(&cpu, &x, (rows, cols), rotated);
        let mut back: Vec<f32> = Vec::new();
        for (q, scale) in q.chunks_exact(cols).zip(scales) {
            let mut row: Vec<f32> =
                q.iter().map(|&q| f32::from(q) * f32::from_bits(scale)).collect();
            if rotated {
                rotate(&mut row);
            }
            back.extend(row);
        }
        let squares = back.iter().zip(&x).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>()
    };
    let (plain, rotated) = (error(false), error(true));
    assert!(rotated < plain / 10.0, "{rotated} beside {plain}");
}

#[test]
fn what_cannot_be_rotated_is_refused() {
    let cpu = cpus().next().unwrap();
    let x = Buffer::zeros(&cpu, Owner::Workspace, "x", 8).unwrap();
    let fold = Buffer::zeros(&cpu, Owner::Workspace, "fold", 4).unwrap();
    let out = QMatrix::alloc(&cpu, Owner::Workspace, "q", (2, 4), ScaleAxis::Row).unwrap();
    let mut out = out.with_rotation(true);
    let (x, fold) = (x.mat(2, 4).unwrap(), Some(fold.all()));
    let op = QuantizeRows { x, fold, rounding: Rounding::Nearest, out: &mut out };
    let error = cpu.quantize_rows(op).unwrap_err().to_string();
    assert!(error.contains("rotated rows, to nearest and without factors"), "{error}");
}
