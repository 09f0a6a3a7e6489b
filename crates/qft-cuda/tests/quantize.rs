//! Quantization against the CPU, bit for bit: maxima have no order, and every rounding is given.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{bits, cpu, devices_under_test, upload};
use qft_tensor::{
    Buffer, Dequantize, Owner, Purpose, QMatrix, QuantizeCols, QuantizeOps, QuantizeRows, RngKey,
    RotateRows, Rounding, ScaleAxis,
};
use qft_testing::rng::TestRng;

const KEY: RngKey = RngKey::new(11 << 40 | 7, 2, 3, Purpose::StoredGradient);

const ROUNDINGS: [Rounding; 3] = [
    Rounding::Nearest,
    Rounding::Stochastic { key: KEY, first_row: 0 },
    Rounding::Stochastic { key: KEY, first_row: 1001 },
];

/// Around four elements of a lane, 128 of a random block, 256 of a window, 512 of a warp, and more than one block of all
/// warps; 172 as in a small model.
const COLS: [usize; 11] = [0, 1, 7, 127, 128, 129, 172, 256, 513, 1028, 4500];

const AXES: [ScaleAxis; 2] = [ScaleAxis::Row, ScaleAxis::Column];

/// Normal numbers; the rows beyond the second are of zeros, of tiny, subnormal and huge numbers, and have some that
/// are not finite.
fn floats(rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = TestRng::new((rows * 10_000 + cols) as u64);
    let mut x = rng.normals(rows * cols, 1.0);
    for (r, row) in x.chunks_mut(cols.max(1)).enumerate() {
        match r % 9 {
            2 => row.fill(-0.0),
            3 => row.iter_mut().for_each(|x| *x *= 1e-31),
            4 => row.iter_mut().for_each(|x| *x *= 1e-40),
            5 => row.iter_mut().for_each(|x| *x *= 1e38),
            6 => row[cols / 2] = f32::NAN,
            7 => row[cols / 3] = f32::INFINITY,
            8 => row.fill(f32::NAN),
            _ => {}
        }
    }
    x
}

fn alloc(on: &dyn QuantizeOps, (rows, cols): (usize, usize), axis: ScaleAxis) -> QMatrix {
    QMatrix::alloc(on, Owner::Workspace, "q", (rows, cols), axis).unwrap()
}

/// Quantizes a matrix whose rows lie `gap` elements apart, the first of them `gap` behind the buffer's start.
fn quantize(
    on: &dyn QuantizeOps,
    (x, rows, cols, gap): (&[f32], usize, usize, usize),
    fold: Option<&[f32]>,
    rounding: Rounding,
    axis: ScaleAxis,
) -> QMatrix {
    let mut wide = vec![f32::NAN; rows * (cols + gap)];
    for r in 0..rows {
        wide[r * (cols + gap) + gap..][..cols].copy_from_slice(&x[r * cols..][..cols]);
    }
    let x = upload(on, &wide);
    let x = x.mat(rows, cols + gap).unwrap().col_range(gap..gap + cols).unwrap();
    // A span that starts at an odd place.
    let fold = fold.map(|f| upload(on, &[&[0.0][..], f].concat()));
    let fold = fold.as_ref().map(|f| f.span(1..f.len()).unwrap());
    let mut out = alloc(on, (rows, cols), axis);
    match axis {
        ScaleAxis::Column => {
            on.quantize_cols(QuantizeCols { x, fold, rounding, out: &mut out }).unwrap();
        }
        _ => on.quantize_rows(QuantizeRows { x, fold, rounding, out: &mut out }).unwrap(),
    }
    out
}

/// Integers, and scales as bits.
fn planes(on: &dyn QuantizeOps, x: &QMatrix) -> (Vec<i8>, Vec<u32>) {
    (x.q.to_vec(on).unwrap(), bits(&x.scale.to_vec(on).unwrap()))
}

#[test]
fn every_axis_rounding_and_border_equals_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for rows in [0, 1, 2, 9, 70] {
            for cols in COLS {
                // Many long rows show nothing that a few do not: the emulator takes its time.
                if rows == 70 && cols > 172 {
                    continue;
                }
                let x = floats(rows, cols);
                let mut rng = TestRng::new(3);
                for axis in AXES {
                    let along = if axis == ScaleAxis::Column { rows } else { cols };
                    let folds = rng.normals(along, 1.0);
                    for (fold, gap) in [(None, 0), (Some(&folds[..]), 3), (Some(&folds[..]), 4)] {
                        for rounding in ROUNDINGS {
                            let x = (&x[..], rows, cols, gap);
                            let run = |on: &dyn QuantizeOps| {
                                planes(on, &quantize(on, x, fold, rounding, axis))
                            };
                            let case = (rows, cols, axis, fold.is_some(), gap, rounding);
                            assert!(run(&device) == run(&cpu), "{name}: {case:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn dequantize_equals_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for (rows, cols) in [(0, 4), (1, 1), (3, 7), (9, 129), (2, 172), (3, 1300)] {
            let x = floats(rows, cols);
            for axis in AXES {
                for rounding in ROUNDINGS {
                    let run = |on: &dyn QuantizeOps| {
                        let from = quantize(on, (&x, rows, cols, 0), None, rounding, axis);
                        // Beyond the columns of the view nothing is written.
                        let mut back = upload(on, &vec![7.0f32; rows * (cols + 3)]);
                        let out = back.mat_mut(rows, cols + 3).unwrap();
                        let out = out.col_range(1..cols + 1).unwrap();
                        on.dequantize(Dequantize { x: &from, out }).unwrap();
                        bits(&back.to_vec(on).unwrap())
                    };
                    let case = (rows, cols, axis, rounding);
                    assert!(run(&device) == run(&cpu), "{name}: {case:?}");
                }
            }
        }
    }
}

/// Rotated in place and on the way to INT8; columns that stand out, and rows that are not finite.
#[test]
fn rotated_rows_equal_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for (rows, cols) in [(0, 20usize), (1, 7), (3, 64), (9, 172), (201, 300), (2, 64 * 300 + 1)]
        {
            for factor in [60.0, 1e30, 0.0, f32::NAN] {
                let mut x = floats(rows, cols);
                x.chunks_exact_mut(cols).for_each(|row| row[cols / 2] *= factor);
                for gap in [0, 3] {
                    let run = |on: &dyn QuantizeOps| {
                        let mut stored = vec![9.0f32; rows * (cols + gap)];
                        for (to, from) in stored.chunks_mut(cols + gap).zip(x.chunks(cols)) {
                            to[gap..].copy_from_slice(from);
                        }
                        let mut stored = upload(on, &stored);
                        let out = alloc(on, (rows, cols), ScaleAxis::Row);
                        let mut out = out.with_rotation(true);
                        let x = stored.mat(rows, cols + gap).unwrap();
                        let x = x.col_range(gap..gap + cols).unwrap();
                        let (fold, rounding) = (None, Rounding::Nearest);
                        on.quantize_rows(QuantizeRows { x, fold, rounding, out: &mut out })
                            .unwrap();
                        let x = stored.mat_mut(rows, cols + gap).unwrap();
                        let x = x.col_range(gap..gap + cols).unwrap();
                        on.rotate_rows(RotateRows { x }).unwrap();
                        let rotated = canonical(&stored.to_vec(on).unwrap());
                        (planes(on, &out), rotated)
                    };
                    let what = format!("{name}: [{rows}, {cols}] x{factor} {gap}");
                    assert!(run(&device) == run(&cpu), "{what}");
                }
            }
        }
    }
}

/// The bits of floats, with one NaN for all.
fn canonical(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// More rows than a strip of the column kernels, more than one strip, and a last one that is not full.
#[test]
fn columns_join_strips() {
    let cpu = cpu();
    let (rows, cols) = (201, 131);
    let x = TestRng::new(8).normals(rows * cols, 1.0);
    for (name, device) in devices_under_test() {
        for rounding in ROUNDINGS {
            let run = |on: &dyn QuantizeOps| {
                let out = quantize(on, (&x, rows, cols, 0), None, rounding, ScaleAxis::Column);
                planes(on, &out)
            };
            assert!(run(&device) == run(&cpu), "{name}: {rounding:?}");
        }
    }
}

#[test]
fn wrong_operands_are_errors() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        let on: &dyn QuantizeOps = &device;
        let x = Buffer::<f32>::zeros(on, Owner::Workspace, "x", 12).unwrap();
        let elsewhere = Buffer::<f32>::zeros(&cpu, Owner::Workspace, "x", 12).unwrap();
        let mut out = alloc(on, (3, 4), ScaleAxis::Row);
        for (x, what) in
            [(x.mat(4, 3).unwrap(), "shape"), (elsewhere.mat(3, 4).unwrap(), "lives on cpu")]
        {
            let rounding = Rounding::Nearest;
            let result = on.quantize_rows(QuantizeRows { x, fold: None, rounding, out: &mut out });
            assert!(result.unwrap_err().to_string().contains(what), "{name}: {what}");
        }
    }
}
