//! Quantization: error bounds, borders, statistics of stochastic rounding, and the same bits on every
//! instruction set and thread count.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use qft_tensor::rng::{HALF_BLOCK, blocks_per_row, rounding_offsets};
use qft_tensor::{
    Buffer, Cpu, CpuConfig, Dequantize, Error, Isa, Owner, Philox, Purpose, QMatrix, QuantizeCols,
    QuantizeOps, QuantizeRows, RngKey, Rounding, ScaleAxis,
};
use qft_testing::rng::TestRng;

const AXES: [ScaleAxis; 2] = [ScaleAxis::Row, ScaleAxis::Column];

const fn stochastic(step: u32, first_row: usize) -> Rounding {
    let key = RngKey::new(11, step, 3, Purpose::StoredGradient);
    Rounding::Stochastic { key, first_row }
}

const ROUNDINGS: [Rounding; 3] = [Rounding::Nearest, stochastic(2, 0), stochastic(2, 77)];

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::new(CpuConfig { threads, isa }).unwrap()
}

fn cpus() -> Vec<Cpu> {
    Isa::available().into_iter().flat_map(|isa| [cpu(1, isa), cpu(2, isa)]).collect()
}

fn alloc(cpu: &Cpu, (rows, cols): (usize, usize), axis: ScaleAxis) -> QMatrix {
    QMatrix::alloc(cpu, Owner::Workspace, "q", (rows, cols), axis).unwrap()
}

/// Quantizes a dense matrix whose rows lie `gap` elements apart.
fn quantize(
    cpu: &Cpu,
    (x, rows, cols, gap): (&[f32], usize, usize, usize),
    fold: Option<&[f32]>,
    rounding: Rounding,
    axis: ScaleAxis,
) -> QMatrix {
    let mut wide = vec![f32::NAN; rows * (cols + gap)];
    for r in 0..rows {
        wide[r * (cols + gap)..][..cols].copy_from_slice(&x[r * cols..][..cols]);
    }
    let x = Buffer::from_host(cpu, Owner::Workspace, "x", &wide).unwrap();
    let x = x.mat(rows, cols + gap).unwrap().col_range(0..cols).unwrap();
    let fold = fold.map(|f| Buffer::from_host(cpu, Owner::Workspace, "fold", f).unwrap());
    let fold = fold.as_ref().map(Buffer::all);
    let mut out = alloc(cpu, (rows, cols), axis);
    match axis {
        ScaleAxis::Column => {
            cpu.quantize_cols(QuantizeCols { x, fold, rounding, out: &mut out }).unwrap();
        }
        _ => cpu.quantize_rows(QuantizeRows { x, fold, rounding, out: &mut out }).unwrap(),
    }
    out
}

fn dequantize(cpu: &Cpu, x: &QMatrix) -> Vec<f32> {
    let (rows, cols) = (x.rows(), x.cols());
    let mut out = Buffer::zeros(cpu, Owner::Workspace, "out", rows * cols).unwrap();
    cpu.dequantize(Dequantize { x, out: out.mat_mut(rows, cols).unwrap() }).unwrap();
    out.to_vec(cpu).unwrap()
}

/// `(integers, scales as bits)`.
fn bits(x: &QMatrix) -> (Vec<i8>, Vec<u32>) {
    let scales = x.scale.host().unwrap().iter().map(|s| s.to_bits());
    (x.q.host().unwrap().to_vec(), scales.collect())
}

/// Index of the scale of element `[r, c]`.
fn scale_index(axis: ScaleAxis, r: usize, c: usize) -> usize {
    match axis {
        ScaleAxis::Row => r,
        ScaleAxis::Column => c,
    }
}

/// The definition, element by element. Rounding to nearest is the stochastic formula with an offset of 1/2
/// taken as 0: `round(v + u - 1/2)`.
fn expected(
    (x, rows, cols): (&[f32], usize, usize),
    fold: Option<&[f32]>,
    rounding: Rounding,
    axis: ScaleAxis,
) -> (Vec<i8>, Vec<u32>) {
    let folded = |r: usize, c: usize| {
        let along = if axis == ScaleAxis::Column { r } else { c };
        fold.map_or(x[r * cols + c], |f| x[r * cols + c] * f[along])
    };
    let mut absmax = vec![0.0f32; axis.scales(rows, cols)];
    for r in 0..rows {
        for c in 0..cols {
            let max = &mut absmax[scale_index(axis, r, c)];
            *max = max.max(folded(r, c).abs());
        }
    }
    let mut q = vec![0; rows * cols];
    for r in 0..rows {
        for c in 0..cols {
            let max = absmax[scale_index(axis, r, c)];
            let inverse = if max > 1e-30 { 127.0 / max } else { 0.0 };
            let offset = match rounding {
                Rounding::Nearest => 0.0,
                Rounding::Stochastic { key, first_row } => {
                    let block = (first_row + r) * blocks_per_row(cols) + c / HALF_BLOCK;
                    let words = Philox::new(key).block(block as u32);
                    rounding_offsets(&words)[c % HALF_BLOCK] - 0.5
                }
            };
            let value = (folded(r, c) * inverse + offset).round_ties_even();
            q[r * cols + c] = value.clamp(-127.0, 127.0) as i8;
        }
    }
    let scales = absmax.iter().map(|&m| if m > 1e-30 { m / 127.0 } else { 0.0f32 });
    (q, scales.map(f32::to_bits).collect())
}

#[test]
fn borders_on_every_path() {
    let cpus = cpus();
    let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    println!("instruction sets that ran: {}", names.join(", "));
    let mut rng = TestRng::new(1);
    for rows in [0, 1, 7, 8, 9, 20] {
        for cols in [0, 1, 15, 16, 17, 127, 128, 129, 300] {
            let x = rng.normals(rows * cols, 1.0);
            for axis in AXES {
                let folds = rng.normals(if axis == ScaleAxis::Column { rows } else { cols }, 1.0);
                for fold in [None, Some(&folds[..])] {
                    for rounding in ROUNDINGS {
                        let want = expected((&x, rows, cols), fold, rounding, axis);
                        for cpu in &cpus {
                            let got = quantize(cpu, (&x, rows, cols, 3), fold, rounding, axis);
                            let case = (rows, cols, axis, fold.is_some(), rounding);
                            assert!(bits(&got) == want, "{cpu:?} {case:?}");
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Nearest: at most half a step off, and half an ulp of the products. Stochastic: less than a step.
    #[test]
    fn round_trip(
        (rows, cols, gap) in (1usize..40, 1usize..400, 0usize..5),
        axis in prop::sample::select(&AXES[..]),
        exponent in -60i32..60,
        seed in any::<u64>(),
    ) {
        let cpu = cpu(2, Isa::detect().unwrap());
        let x = TestRng::new(seed).normals(rows * cols, 2f64.powi(exponent));
        for (rounding, steps) in ROUNDINGS.into_iter().zip([0.5, 1.0, 1.0]) {
            let q = quantize(&cpu, (&x, rows, cols, gap), None, rounding, axis);
            let scale = q.scale.host().unwrap();
            for (i, (&x, back)) in x.iter().zip(dequantize(&cpu, &q)).enumerate() {
                let scale = scale[scale_index(axis, i / cols, i % cols)];
                // Scale, inverse and both products round: 127 steps of relative error 2^-22 at most.
                let bound = scale * (steps + 127.0 * 2f32.powi(-22));
                prop_assert!((x - back).abs() <= bound, "{x} {back} {scale} {rounding:?}");
            }
            prop_assert!(q.q.host().unwrap().iter().all(|&q| q != -128));
        }
    }
}

/// A row has the bits of its place in the tensor, whatever it is rounded with.
#[test]
fn blocks_of_rows_have_the_bits_of_the_whole() {
    let (rows, cols) = (37, 301);
    let x = TestRng::new(9).normals(rows * cols, 1.0);
    for cpu in cpus() {
        let whole = quantize(&cpu, (&x, rows, cols, 0), None, stochastic(2, 0), ScaleAxis::Row);
        for size in [1, 2, 5, 8, 36] {
            let (mut q, mut scale) = (Vec::new(), Vec::new());
            for first in (0..rows).step_by(size) {
                let part = size.min(rows - first);
                let x = (&x[first * cols..][..part * cols], part, cols, 0);
                let part = quantize(&cpu, x, None, stochastic(2, first), ScaleAxis::Row);
                q.extend(part.q.to_vec(&cpu).unwrap());
                scale.extend(part.scale.to_vec(&cpu).unwrap());
            }
            assert_eq!(q, whole.q.host().unwrap(), "{cpu:?}: blocks of {size}");
            assert_eq!(scale, whole.scale.host().unwrap(), "{cpu:?}: blocks of {size}");
        }
    }
}

/// The largest magnitude becomes exactly +-127, and integers survive.
#[test]
fn integers_are_exact() {
    let cpu = cpu(1, Isa::detect().unwrap());
    let x: Vec<f32> = (-127..=127).map(|v| v as f32 * 0.25).collect();
    let q = quantize(&cpu, (&x, 1, x.len(), 0), None, Rounding::Nearest, ScaleAxis::Row);
    let want: Vec<i8> = (-127..=127).collect();
    assert_eq!(q.q.host().unwrap(), want);
    assert_eq!(dequantize(&cpu, &q), x);
}

#[test]
fn zero_and_tiny_rows_and_columns_have_scale_zero() {
    for cpu in cpus() {
        for tiny in [0.0f32, -0.0, 1e-40, 1e-31] {
            for axis in AXES {
                for rounding in ROUNDINGS {
                    let mut x = vec![tiny; 3 * 20];
                    let q = quantize(&cpu, (&x, 3, 20, 0), None, rounding, axis);
                    assert!(q.scale.host().unwrap().iter().all(|&s| s == 0.0));
                    assert!(dequantize(&cpu, &q).iter().all(|&x| x == 0.0));
                    // One with content leaves the others alone.
                    x[20] = 5.0;
                    let q = quantize(&cpu, (&x, 3, 20, 0), None, rounding, axis);
                    assert_eq!(q.scale.host().unwrap().iter().filter(|&&s| s != 0.0).count(), 1);
                }
            }
        }
    }
}

/// What is documented for values that are not numbers, on every path.
#[test]
fn nan_becomes_zero_and_does_not_spread() {
    for cpu in cpus() {
        for axis in AXES {
            for rounding in ROUNDINGS {
                let mut x = vec![1.0f32; 40 * 40];
                x[0] = f32::NAN;
                let q = quantize(&cpu, (&x, 40, 40, 0), None, rounding, axis);
                let ints = q.q.host().unwrap();
                assert_eq!(ints[0], 0, "{cpu:?} {axis:?} {rounding:?}");
                assert!(ints[1..].iter().all(|&q| q == 127), "{cpu:?} {axis:?} {rounding:?}");
                assert!(q.scale.host().unwrap().iter().all(|&s| s == 1.0 / 127.0));
            }
        }
    }
}

/// The mean over many draws is the value: stochastic rounding loses no small update.
#[test]
fn stochastic_rounding_is_unbiased() {
    let cpu = cpu(2, Isa::detect().unwrap());
    let cols = 64;
    // One element sets the step to 1; the others are fractions of it.
    let mut x: Vec<f32> = (0..cols).map(|c| c as f32 / cols as f32 - 0.5).collect();
    x[0] = 127.0;
    let draws = 4000;
    let mut mean = vec![0.0f64; cols];
    for step in 0..draws {
        let rounding = stochastic(step, 0);
        let q = quantize(&cpu, (&x, 1, cols, 0), None, rounding, ScaleAxis::Row);
        for (mean, &q) in mean.iter_mut().zip(q.q.host().unwrap()) {
            *mean += f64::from(q) / f64::from(draws);
        }
    }
    for (c, (&x, &mean)) in x.iter().zip(&mean).enumerate() {
        let fraction = f64::from(x) - f64::from(x).floor();
        // Five standard deviations of the mean of a Bernoulli variable, and the 16-bit grid.
        let bound = 5.0 * (fraction * (1.0 - fraction) / f64::from(draws)).sqrt() + 2f64.powi(-16);
        assert!((mean - f64::from(x)).abs() <= bound, "column {c}: {mean}, expected {x}");
    }
    // Neighbours must not be rounded alike: the variance of the row sum is the sum of variances.
    let sums: Vec<f64> = (0..draws)
        .map(|step| {
            let rounding = stochastic(step, 0);
            let q = quantize(&cpu, (&x, 1, cols, 0), None, rounding, ScaleAxis::Row);
            q.q.host().unwrap()[1..].iter().map(|&q| f64::from(q)).sum()
        })
        .collect();
    let sum_mean = sums.iter().sum::<f64>() / sums.len() as f64;
    let variance = sums.iter().map(|s| (s - sum_mean).powi(2)).sum::<f64>() / sums.len() as f64;
    let want: f64 = x[1..]
        .iter()
        .map(|&x| f64::from(x) - f64::from(x).floor())
        .map(|fraction| fraction * (1.0 - fraction))
        .sum();
    // The variance of a sample variance of n normal draws is 2 / n: five standard deviations.
    let bound = 5.0 * (2.0 / f64::from(draws)).sqrt();
    assert!((variance / want - 1.0).abs() < bound, "variance {variance}, expected {want}");
}

#[test]
fn wrong_shapes_are_errors() {
    let cpu = cpu(1, Isa::SCALAR);
    let x = Buffer::<f32>::zeros(&cpu, Owner::Workspace, "x", 12).unwrap();
    let fold = Buffer::<f32>::zeros(&cpu, Owner::Workspace, "fold", 5).unwrap();
    let rounding = Rounding::Nearest;
    let mut by_row = alloc(&cpu, (3, 4), ScaleAxis::Row);
    let mut by_col = alloc(&cpu, (3, 4), ScaleAxis::Column);
    let rows = |out: &mut QMatrix, (r, c), fold| {
        cpu.quantize_rows(QuantizeRows { x: x.mat(r, c).unwrap(), fold, rounding, out })
    };
    let cols = |out: &mut QMatrix, (r, c), fold| {
        cpu.quantize_cols(QuantizeCols { x: x.mat(r, c).unwrap(), fold, rounding, out })
    };
    for result in [
        rows(&mut by_row, (4, 3), None),
        rows(&mut by_col, (3, 4), None),
        rows(&mut by_row, (3, 4), Some(fold.all())),
        cols(&mut by_col, (4, 3), None),
        cols(&mut by_row, (3, 4), None),
        cols(&mut by_col, (3, 4), Some(fold.all())),
    ] {
        assert!(matches!(result, Err(Error::ShapeMismatch { .. })), "{result:?}");
    }
}
