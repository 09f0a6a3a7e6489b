//! Norm, SwiGLU, rotary embedding and rows by index against the CPU, bit for bit: the kernels add in the CPU's order and
//! share its exponential function.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{alloc, cpu, devices_under_test, emulator, upload};
use qft_autograd::ops::{
    AddBias, BiasGradient, EmbedBackward, EmbedForward, FromUnits, GatherRows, RaiseBound,
    RmsNormBackward, RmsNormForward, Rope, ScaledAdd, ScatterRows, SwigluBackward, SwigluForward,
};
use qft_autograd::{ActivationsOut, Error, LayerOps, TableRef};
use qft_quant::{HybridFormat, HybridMatrix, Residual};
use qft_tensor::{Buffer, Owner, QMatrix, ScaleAxis};
use qft_testing::rng::TestRng;
use std::ops::Range;

/// `[rows, cols]`: one of each, borders of 16 lanes and of a block's 256 threads, rows longer than a tile in shared
/// memory, more rows than a share of the gain's gradient.
const SHAPES: &[(usize, usize)] = &[
    (1, 1),
    (3, 2),
    (7, 15),
    (5, 17),
    (9, 64),
    (2, 257),
    (65, 33),
    (130, 20),
    (2, 2049),
    (1, 4099),
];

/// Integers and bits of a result; every NaN is the same.
fn canonical(values: &[f32]) -> Vec<i64> {
    values.iter().map(|x| if x.is_nan() { -1 } else { i64::from(x.to_bits()) }).collect()
}

fn floats(device: &dyn LayerOps, buffer: &Buffer<f32>) -> Vec<i64> {
    canonical(&buffer.to_vec(device).unwrap())
}

fn int8(device: &dyn LayerOps, shape: (usize, usize)) -> QMatrix {
    QMatrix::alloc(device, Owner::Activations, "test", shape, ScaleAxis::Row).unwrap()
}

fn planes(device: &dyn LayerOps, x: &QMatrix) -> Vec<i64> {
    let q = x.q.to_vec(device).unwrap();
    q.into_iter().map(i64::from).chain(floats(device, &x.scale)).collect()
}

/// Runs `f` on the CPU and on every device: all results must be the same.
#[track_caller]
fn same(what: &str, f: impl Fn(&dyn LayerOps) -> Vec<Vec<i64>>) {
    let want = f(&cpu());
    for (name, device) in devices_under_test() {
        for (i, (got, want)) in f(&device).iter().zip(&want).enumerate() {
            let off = got.iter().zip(want).position(|(a, b)| a != b);
            assert_eq!(off, None, "{what}, result {i} on {name}: first element that differs");
            assert_eq!(got.len(), want.len(), "{what}, result {i} on {name}");
        }
    }
}

/// Values, the first of them out of the ordinary.
fn with_extremes(rng: &mut TestRng, len: usize, sigma: f64, extremes: &[f32]) -> Vec<f32> {
    let mut values = rng.normals(len, sigma);
    for (x, &extreme) in values.iter_mut().zip(extremes) {
        *x = extreme;
    }
    values
}

#[test]
fn rmsnorm() {
    for (seed, &(rows, cols)) in SHAPES.iter().enumerate() {
        let mut rng = TestRng::new(seed as u64);
        let mut x = rng.normals(rows * cols, 2.0);
        // A row of zeros, and one that holds a NaN.
        if rows > 4 {
            x[cols..2 * cols].fill(0.0);
            x[2 * cols] = f32::NAN;
        }
        let (gain, dy) = (rng.normals(cols, 1.0), rng.normals(rows * cols, 1.0));
        let (before, dgain_before) = (rng.normals(rows * cols, 1.0), rng.normals(cols, 1.0));
        same(&format!("[{rows}, {cols}]"), |ops| {
            let (x, gain) = (&upload(ops, &x), &upload(ops, &gain));
            let (mut rstd, mut out) = (alloc(ops, rows), alloc(ops, rows * cols));
            let (mut fused, mut fused_rstd) = (int8(ops, (rows, cols)), alloc(ops, rows));
            for (rstd, out) in [
                (&mut rstd, ActivationsOut::Float(&mut out)),
                (&mut fused_rstd, ActivationsOut::Int8(&mut fused)),
            ] {
                ops.rmsnorm_forward(RmsNormForward { x, gain, eps: 1e-5, rstd, out }).unwrap();
            }
            let (mut dx, mut dgain) = (upload(ops, &before), upload(ops, &dgain_before));
            let (dx, dgain, rstd, dy) = (&mut dx, &mut dgain, &rstd, &upload(ops, &dy));
            ops.rmsnorm_backward(RmsNormBackward { x, gain, rstd, dy, dx, dgain }).unwrap();
            vec![
                floats(ops, &out),
                floats(ops, rstd),
                planes(ops, &fused),
                floats(ops, &fused_rstd),
                floats(ops, dx),
                floats(ops, dgain),
            ]
        });
    }
}

#[test]
fn swiglu() {
    // Besides, rows that shared memory can hold only just, and not.
    let wide = [(1, 98 * 256), (1, 98 * 256 + 1)];
    for (seed, &(rows, cols)) in SHAPES.iter().chain(&wide).enumerate() {
        let mut rng = TestRng::new(50 + seed as u64);
        let extremes = [0.0, -0.0, 100.0, -100.0, -1e30, 1e30, f32::NAN, f32::INFINITY];
        let gate = with_extremes(&mut rng, rows * cols, 3.0, &extremes);
        let (up, dy) = (rng.normals(rows * cols, 1.0), rng.normals(rows * cols, 1.0));
        same(&format!("[{rows}, {cols}]"), |ops| {
            let (mut gate, mut up) = (upload(ops, &gate), upload(ops, &up));
            let (mut out, mut fused) = (alloc(ops, rows * cols), int8(ops, (rows, cols)));
            for out in [ActivationsOut::Float(&mut out), ActivationsOut::Int8(&mut fused)] {
                let (gate, up) = (&gate, &up);
                ops.swiglu_forward(SwigluForward { gate, up, rows, out }).unwrap();
            }
            let (dy, gate_ref, up_ref) = (&upload(ops, &dy), &mut gate, &mut up);
            ops.swiglu_backward(SwigluBackward { dy, gate: gate_ref, up: up_ref }).unwrap();
            vec![floats(ops, &out), planes(ops, &fused), floats(ops, &gate), floats(ops, &up)]
        });
    }
}

/// Large values in some columns, and values that are not finite.
const OUTLIERS: &[(usize, f32)] = &[(0, 1.0), (5, 400.0), (4, 0.0), (3, 1e30), (2, f32::NAN)];

fn multiply_columns(values: &mut [f32], cols: usize, (count, factor): (usize, f32)) {
    for row in values.chunks_mut(cols) {
        (1..cols).step_by(3).take(count).for_each(|c| row[c] *= factor);
    }
}

/// Rows shorter than a group, of all sizes of groups, of more groups than a block has threads, and beyond shared memory.
#[test]
fn rotated_rows() {
    let shapes =
        [(1, 1), (2, 8), (3, 9), (40, 33), (5, 172), (2, 1500), (2, 64 * 270 + 21), (1, 60_000)];
    for (seed, &(rows, cols)) in shapes.iter().enumerate() {
        for &outliers in OUTLIERS {
            let mut rng = TestRng::new(70 + seed as u64);
            let mut x = rng.normals(rows * cols, 2.0);
            let (mut gate, up) = (rng.normals(rows * cols, 3.0), rng.normals(rows * cols, 1.0));
            let gain = rng.normals(cols, 1.0);
            multiply_columns(&mut x, cols, outliers);
            multiply_columns(&mut gate, cols, outliers);
            same(&format!("[{rows}, {cols}], {outliers:?}"), |ops| {
                let (x, gain) = (&upload(ops, &x), &upload(ops, &gain));
                let mut normed = int8(ops, (rows, cols)).with_rotation(true);
                let mut rstd = alloc(ops, rows);
                let (rstd, out) = (&mut rstd, ActivationsOut::Int8(&mut normed));
                ops.rmsnorm_forward(RmsNormForward { x, gain, eps: 1e-5, rstd, out }).unwrap();
                let (gate, up) = (&upload(ops, &gate), &upload(ops, &up));
                let mut activated = int8(ops, (rows, cols)).with_rotation(true);
                let out = ActivationsOut::Int8(&mut activated);
                ops.swiglu_forward(SwigluForward { gate, up, rows, out }).unwrap();
                vec![planes(ops, &normed), planes(ops, &activated)]
            });
        }
    }
}

#[test]
fn rope() {
    // The f64 sines of the two backends differ by 1e-15; rounded to f32 they agree unless a border lies between, which
    // it does for none of these angles.
    for (tokens, heads, half, rest, far) in [
        (1, 1, 1, 0, 0),
        (3, 2, 4, 0, 10),
        (100, 3, 5, 4, 1),
        (20, 2, 32, 0, 6_553),
        (5, 4, 40, 32, 100_003),
        (2, 2, 0, 6, 1),
    ] {
        let mut rng = TestRng::new(tokens as u64);
        let size = 2 * half + rest;
        let x = rng.normals(tokens * heads * size, 1.0);
        let positions: Vec<u32> = (0..tokens as u32).map(|t| far * t + t % 50).collect();
        let inv_freq: Vec<f32> =
            (0..half).map(|i| 1e4f32.powf(-(i as f32) / half as f32)).collect();
        same(&format!("{tokens} tokens, {heads} heads, half {half}"), |ops| {
            let (positions, inv_freq) = (&upload(ops, &positions), &upload(ops, &inv_freq));
            [(1.0, false), (1.25, true)]
                .map(|(scale, inverse)| {
                    let mut turned = upload(ops, &x);
                    let x = &mut turned;
                    ops.rope(Rope { x, positions, inv_freq, heads, size, scale, inverse }).unwrap();
                    floats(ops, &turned)
                })
                .into()
        });
    }
}

#[test]
fn biases_and_sums() {
    for (tokens, width) in [(0, 3), (1, 1), (64, 5), (65, 300), (200, 17)] {
        let mut rng = TestRng::new(tokens as u64);
        let (y, bias) = (rng.normals(tokens * width, 1.0), rng.normals(width, 1.0));
        same(&format!("{tokens} tokens, {width} wide"), |ops| {
            let (mut y, bias) = (upload(ops, &y), &upload(ops, &bias));
            ops.add_bias(AddBias { y: &mut y, bias }).unwrap();
            let mut dbias = upload(ops, &vec![1.0f32; width]);
            ops.bias_gradient(BiasGradient { dy: &y, dbias: &mut dbias }).unwrap();
            let mut sum = upload(ops, &vec![0.5f32; tokens * width]);
            ops.scaled_add(ScaledAdd { src: &y, scale: 0.22, dst: &mut sum }).unwrap();
            vec![floats(ops, &y), floats(ops, &dbias), floats(ops, &sum)]
        });
    }
}

#[test]
fn sums_of_units_have_the_same_bits() {
    let mut rng = TestRng::new(3);
    for &(rows, cols) in SHAPES {
        let mut scale: Vec<f32> = rng.normals(rows, 1.0).into_iter().map(f32::abs).collect();
        scale[0] = if rows == 2 { f32::NAN } else { 0.0 };
        let sum: Vec<i32> =
            (0..rows * cols).map(|_| rng.below(1 << 31) as i32 - (1 << 30)).collect();
        same(&format!("[{rows}, {cols}]"), |ops| {
            let (scale, mut bound) = (upload(ops, &scale), upload(ops, &vec![0.25f32; rows]));
            ops.raise_bound(RaiseBound { scale: &scale, factor: 9.0, bound: &mut bound }).unwrap();
            let (sum, mut values) = (upload(ops, &sum), alloc(ops, rows * cols));
            let (bound, count) = (bound.all(), 3);
            let (sum, values_out) = (&sum, &mut values);
            ops.from_units(FromUnits { sum, bound, count, cols, values: values_out }).unwrap();
            vec![floats(ops, &values)]
        });
    }
}

#[test]
fn embedding_moves_rows() {
    let mut rng = TestRng::new(1);
    for channels in [1, 19, 1028] {
        let vocab = 50;
        let table = rng.normals(vocab * channels, 1.0);
        let ids: Vec<u32> = (0..70).map(|_| rng.below(vocab) as u32).chain([0, 49]).collect();
        same(&format!("{channels} channels"), |ops| {
            let (table, ids) = (upload(ops, &table), &upload(ops, &ids));
            let (table, mut out) = (TableRef::Float(&table), alloc(ops, ids.len() * channels));
            ops.embed_forward(EmbedForward { ids, table, vocab, channels, out: &mut out }).unwrap();
            vec![floats(ops, &out)]
        });
    }
}

#[test]
fn hybrid_embedding_reads_all_planes() {
    let vocab = 30;
    let ids = [3u32, 29, 0, 3];
    for (channels, residual) in [
        (300, Residual::None),
        (301, Residual::Bits4),
        (256, Residual::Bits4),
        (600, Residual::Bits8),
    ] {
        let weights = TestRng::new(2).normals(vocab * channels, 1.0);
        for protected_fraction in [0.0, 0.01] {
            let format = HybridFormat { residual, protected_fraction, rotated: false };
            same(&format!("{channels} channels, {format:?}"), |ops| {
                let mut read = |rows: Range<usize>, out: &mut [f32]| {
                    out.copy_from_slice(&weights[rows.start * channels..rows.end * channels]);
                    Ok::<_, qft_quant::Error>(())
                };
                let (table, _) =
                    HybridMatrix::encode(ops, (vocab, channels), format, &mut read).unwrap();
                let mut out = alloc(ops, ids.len() * channels);
                let (ids, table) = (&upload(ops, &ids), TableRef::Hybrid(&table));
                ops.embed_forward(EmbedForward { ids, table, vocab, channels, out: &mut out })
                    .unwrap();
                vec![floats(ops, &out)]
            });
        }
    }
}

#[test]
fn embedding_gradient_adds_rows_in_order() {
    let mut rng = TestRng::new(3);
    let vocab = 100;
    // Some rows often, most never, more tokens than a chunk of 256.
    let ids: Vec<u32> = (0..600).map(|_| (rng.below(10) * rng.below(12)) as u32).collect();
    for (channels, padding) in [(7, 0), (8, 4), (6, 2), (1030, 0)] {
        let stride = channels + padding;
        let dy = rng.normals(ids.len() * channels, 1.0);
        let before = rng.normals(vocab * stride, 1.0);
        same(&format!("{channels} channels, {padding} between rows"), |ops| {
            let (ids, dy) = (&upload(ops, &ids), &upload(ops, &dy));
            let parts = [0..1, 1..40, 40..100].map(|rows: Range<usize>| {
                let mut grad = upload(ops, &before[rows.start * stride..rows.end * stride]);
                let view = grad.mat_mut(rows.len(), stride).unwrap();
                let view = view.col_range(padding..stride).unwrap();
                ops.embed_backward(EmbedBackward { ids, dy, rows, grad: view }).unwrap();
                floats(ops, &grad)
            });
            parts.into()
        });
    }
}

#[test]
fn gather_and_scatter() {
    let mut rng = TestRng::new(4);
    let tokens = 40;
    let index: Vec<u32> = (0..tokens as u32).filter(|t| t % 3 == 1).rev().collect();
    for channels in [1, 5, 12] {
        let src = rng.normals(tokens * channels, 1.0);
        same(&format!("{channels} channels"), |ops| {
            let (index, src) = (&upload(ops, &index), &upload(ops, &src));
            let (mut out, mut dst) = (alloc(ops, index.len() * channels), alloc(ops, src.len()));
            ops.gather_rows(GatherRows { src, index, channels, out: &mut out }).unwrap();
            ops.scatter_rows(ScatterRows { src: &out, index, channels, dst: &mut dst }).unwrap();
            vec![floats(ops, &out), floats(ops, &dst)]
        });
    }
}

#[test]
fn indices_out_of_range_are_errors_and_never_read() {
    let device = emulator(0);
    let table = alloc(&device, 10);
    let sent = upload(&device, &[4u32, 5]);
    // The host knows nothing of what the device has copied.
    let mut copied = alloc(&device, 2);
    copied.copy_from(&device, 0, &sent, 0..2).unwrap();
    let mut replaced = upload(&device, &[0u32, 1]);
    replaced.upload(&device, 1, &[5]).unwrap();
    for ids in [&sent, &copied, &replaced] {
        let (mut out, mut dst) = (alloc(&device, 4), alloc(&device, 10));
        let float = TableRef::Float(&table);
        let op = EmbedForward { ids, table: float, vocab: 5, channels: 2, out: &mut out };
        let error = device.embed_forward(op).unwrap_err();
        let expected = matches!(error, Error::IndexOutOfRange { id: 5, position: 1, len: 5, .. });
        assert!(expected, "{error}");
        let op = GatherRows { src: &table, index: ids, channels: 2, out: &mut out };
        assert!(matches!(device.gather_rows(op), Err(Error::IndexOutOfRange { .. })));
        let op = ScatterRows { src: &out, index: ids, channels: 2, dst: &mut dst };
        assert!(matches!(device.scatter_rows(op), Err(Error::IndexOutOfRange { .. })));
    }
    // In range, whether the host knows or must ask; and in range again after it was not.
    let mut out = alloc(&device, 4);
    replaced.upload(&device, 0, &[2, 3]).unwrap();
    copied.copy_from(&device, 0, &replaced, 0..2).unwrap();
    for index in [&replaced, &copied] {
        let op = GatherRows { src: &table, index, channels: 2, out: &mut out };
        device.gather_rows(op).unwrap();
    }
}

#[test]
fn nothing_to_do_is_no_error() {
    let device = emulator(0);
    let (ids, mut out) = (upload::<u32>(&device, &[]), alloc(&device, 0));
    let table = alloc(&device, 10);
    let op = EmbedForward {
        ids: &ids,
        table: TableRef::Float(&table),
        vocab: 5,
        channels: 2,
        out: &mut out,
    };
    device.embed_forward(op).unwrap();
    let (mut gate, mut up) = (alloc(&device, 0), alloc(&device, 0));
    let mut empty = int8(&device, (0, 0));
    let to = ActivationsOut::Int8(&mut empty);
    device.swiglu_forward(SwigluForward { gate: &gate, up: &up, rows: 0, out: to }).unwrap();
    let op = SwigluBackward { dy: &out, gate: &mut gate, up: &mut up };
    device.swiglu_backward(op).unwrap();
}
