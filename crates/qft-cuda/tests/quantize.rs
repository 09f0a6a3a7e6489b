//! Quantization against the CPU, bit for bit: maxima have no order, and every rounding is given.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{bits, cpu, devices_under_test, upload, wide_alloc, wide_matrix};
use qft_tensor::{
    Buffer, Dequantize, Owner, Purpose, QMatrix, QuantizeCols, QuantizeOps, QuantizeRows,
    RaiseMaxima, RngKey, Rounding, ScaleAxis, SelectWide, WIDE,
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

/// Columns that stand out, and rows that are not finite; then the maxima of what came out, in more than one strip of
/// rows, and the choice they lead to.
#[test]
fn wide_channels_are_quantized_and_chosen_as_on_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for (rows, cols) in [(0, 20usize), (1, 7), (3, 9), (9, 172), (201, 300), (12, 1300)] {
            for (count, factor) in [(0, 60.0), (1, 60.0), (5, 1e30), (8, 1.9), (4, 0.0)] {
                let columns = || (0..cols).step_by(cols.div_ceil(8)).take(count);
                let mut x = floats(rows, cols);
                for row in x.chunks_exact_mut(cols) {
                    columns().for_each(|c| row[c] *= factor);
                }
                for gap in [0, 3] {
                    let cols = cols - usize::from(gap > 0);
                    let channels: Vec<u32> =
                        columns().filter(|&c| c < cols).map(|c| c as u32).collect();
                    let run = |on: &dyn QuantizeOps| {
                        let wide = [&[9.0][..], &x].concat();
                        let x = upload(on, &wide);
                        let x = match gap {
                            0 => x.mat(rows, cols),
                            _ => x.mat(rows, cols + 1).and_then(|x| x.col_range(1..cols + 1)),
                        };
                        let mut out = wide_alloc(on, (rows, cols), &channels);
                        let (fold, rounding) = (None, Rounding::Nearest);
                        let op = QuantizeRows { x: x.unwrap(), fold, rounding, out: &mut out };
                        on.quantize_rows(op).unwrap();
                        let high = out.wide.as_ref().unwrap().high.to_vec(on).unwrap();
                        let before = TestRng::new(5).normals(cols, 1.0);
                        let before: Vec<f32> = before.into_iter().map(f32::abs).collect();
                        let mut maxima = upload(on, &before);
                        on.raise_maxima(RaiseMaxima { x: &out, maxima: &mut maxima }).unwrap();
                        let mut table = upload(on, &[9u32; 3 * WIDE]);
                        let choice = table.mat_mut(3, WIDE).unwrap().row_range(1..2).unwrap();
                        on.select_wide(SelectWide { maxima: &maxima, choice }).unwrap();
                        let maxima = bits(&maxima.to_vec(on).unwrap());
                        (planes(on, &out), high, maxima, table.to_vec(on).unwrap())
                    };
                    let (got, want) = (run(&device), run(&cpu));
                    assert!(got == want, "{name}: [{rows}, {cols}] {count} x{factor} {gap}");
                }
            }
        }
    }
}

/// Second digits in some of the places, which the test gives: whoever quantizes chooses them.
#[test]
fn both_digits_of_wide_channels_are_dequantized() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for (rows, cols) in [(1, 9), (7, 172), (40, 300)] {
            for channels in [&[][..], &[0], &[1, 4, 8]] {
                let run = |on: &dyn QuantizeOps| {
                    let x = wide_matrix(on, (rows, cols), channels);
                    let mut back = upload(on, &vec![7.0f32; rows * (cols + 3)]);
                    let out = back.mat_mut(rows, cols + 3).unwrap().col_range(1..cols + 1).unwrap();
                    on.dequantize(Dequantize { x: &x, out }).unwrap();
                    bits(&back.to_vec(on).unwrap())
                };
                assert!(run(&device) == run(&cpu), "{name}: [{rows}, {cols}] {channels:?}");
            }
        }
    }
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
