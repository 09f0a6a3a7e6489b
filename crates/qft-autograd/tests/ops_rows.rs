//! RMSNorm, SwiGLU, rotary embedding and bf16 against their f64 references, and bit for bit across instruction sets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ops_common;

use half::bf16;
use ops_common::{all, best, bits, garbage, get, put};
use qft_autograd::ops::{
    AddBias, BiasGradient, FromBf16, RmsNormBackward, RmsNormForward, Rope, ScaledAdd,
    SwigluBackward, SwigluForward, ToBf16,
};
use qft_autograd::{ActivationsOut, LayerOps};
use qft_tensor::{Buffer, Cpu, Owner, QMatrix, QuantizeOps, QuantizeRows, Rounding, ScaleAxis};
use qft_testing::reference::{self, widen};
use qft_testing::rng::TestRng;
use qft_testing::tolerance::Tolerance;

/// `[rows, cols]`: one of each, vector borders and both their neighbours, more rows than a block.
const SHAPES: &[(usize, usize)] =
    &[(1, 1), (1, 16), (3, 2), (7, 15), (8, 17), (9, 64), (65, 33), (130, 100), (2, 4099)];

fn int8(cpu: &Cpu, shape: (usize, usize), rotated: bool) -> QMatrix {
    let matrix = QMatrix::alloc(cpu, Owner::Activations, "test", shape, ScaleAxis::Row).unwrap();
    matrix.with_rotation(rotated)
}

/// Quantizes rows that were written as floats: what the fused path must equal.
fn quantized(cpu: &Cpu, x: &Buffer<f32>, (rows, cols): (usize, usize), rotated: bool) -> Planes {
    let mut out = int8(cpu, (rows, cols), rotated);
    let x = x.mat(rows, cols).unwrap();
    let op = QuantizeRows { x, fold: None, rounding: Rounding::Nearest, out: &mut out };
    cpu.quantize_rows(op).unwrap();
    planes(&out)
}

/// Integers and scales.
type Planes = (Vec<i8>, Vec<u32>);

fn planes(x: &QMatrix) -> Planes {
    (get(&x.q), bits(&get(&x.scale)))
}

/// Runs `f` on every instruction set and number of threads; the bits must agree.
fn agree(f: impl Fn(&Cpu) -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let mut first: Option<Vec<Vec<f32>>> = None;
    for (name, cpu) in all() {
        let got = f(&cpu);
        let want = first.get_or_insert_with(|| got.clone());
        for (i, (got, want)) in got.iter().zip(want.iter()).enumerate() {
            assert_eq!(bits(got), bits(want), "result {i} with {name}");
        }
    }
    first.unwrap()
}

#[test]
fn rmsnorm() {
    // A sum of squares in 16 lanes loses about as many roundings as the square root of a lane's length; three
    // products follow. Backward, the mean is a second sum, and what was there is added.
    for (seed, &(rows, cols)) in SHAPES.iter().enumerate() {
        let mut rng = TestRng::new(seed as u64);
        let (x, dy) = (rng.normals(rows * cols, 2.0), rng.normals(rows * cols, 1.0));
        let (gain, before) = (rng.normals(cols, 1.0), rng.normals(rows * cols, 1.0));
        let dgain_before = rng.normals(cols, 1.0);
        let eps = 1e-5;
        let got = agree(|cpu| {
            let (x, gain) = (put(cpu, &x), put(cpu, &gain));
            let (mut rstd, mut out) = (garbage(cpu, rows), garbage(cpu, rows * cols));
            let float = ActivationsOut::Float(&mut out);
            cpu.rmsnorm_forward(RmsNormForward {
                x: &x,
                gain: &gain,
                eps,
                rstd: &mut rstd,
                out: float,
            })
            .unwrap();
            for rotated in [false, true] {
                let mut fused = int8(cpu, (rows, cols), rotated);
                let mut fused_rstd = garbage(cpu, rows);
                cpu.rmsnorm_forward(RmsNormForward {
                    x: &x,
                    gain: &gain,
                    eps,
                    rstd: &mut fused_rstd,
                    out: ActivationsOut::Int8(&mut fused),
                })
                .unwrap();
                let want = quantized(cpu, &out, (rows, cols), rotated);
                assert_eq!(planes(&fused), want, "[{rows}, {cols}], rotated: {rotated}");
                assert_eq!(bits(&get(&fused_rstd)), bits(&get(&rstd)));
            }
            let (mut dx, mut dgain) = (put(cpu, &before), put(cpu, &dgain_before));
            cpu.rmsnorm_backward(RmsNormBackward {
                x: &x,
                gain: &gain,
                rstd: &rstd,
                dy: &put(cpu, &dy),
                dx: &mut dx,
                dgain: &mut dgain,
            })
            .unwrap();
            vec![get(&out), get(&rstd), get(&dx), get(&dgain)]
        });
        let (x, gain, dy) = (widen(&x), widen(&gain), widen(&dy));
        let (out, rstd) = reference::rmsnorm(&x, &gain, f64::from(eps));
        let (mut dx, mut dgain) = reference::rmsnorm_backward(&x, &gain, f64::from(eps), &dy);
        dx.iter_mut().zip(&before).for_each(|(x, b)| *x += f64::from(*b));
        dgain.iter_mut().zip(&dgain_before).for_each(|(x, b)| *x += f64::from(*b));
        let forward = Tolerance {
            relative: 8.0 * 2f64.powi(-24),
            ..Tolerance::roundings("a sum and three products", 0.0, 1.0)
        };
        forward.assert("out", &got[0], &out);
        forward.assert("rstd", &got[1], &rstd);
        // One-column rows have a gradient of almost nothing times 1 / rms, which may be large.
        let scale = rstd.iter().copied().fold(1.0, f64::max);
        let backward = Tolerance::roundings("two sums, products of 4 to 12", 24.0, scale);
        backward.assert("dx", &got[2], &dx);
        // Sums over rows grow to a few times sqrt(rows), and take sqrt(rows) roundings of that size.
        let sums = Tolerance::roundings("sums over rows", 24.0 + rows as f64, scale);
        sums.assert("dgain", &got[3], &dgain);
    }
}

#[test]
fn swiglu() {
    for (seed, &(rows, cols)) in SHAPES.iter().enumerate() {
        let mut rng = TestRng::new(50 + seed as u64);
        let len = rows * cols;
        let (mut gate, up, dy) =
            (rng.normals(len, 3.0), rng.normals(len, 1.0), rng.normals(len, 1.0));
        for (x, extreme) in gate.iter_mut().zip([0.0, -0.0, 100.0, -100.0, -1e30, 1e30]) {
            *x = extreme;
        }
        let got = agree(|cpu| {
            let (mut gate, mut up) = (put(cpu, &gate), put(cpu, &up));
            let mut out = garbage(cpu, len);
            let float = ActivationsOut::Float(&mut out);
            cpu.swiglu_forward(SwigluForward { gate: &gate, up: &up, rows, out: float }).unwrap();
            for rotated in [false, true] {
                let mut fused = int8(cpu, (rows, cols), rotated);
                let out8 = ActivationsOut::Int8(&mut fused);
                let op = SwigluForward { gate: &gate, up: &up, rows, out: out8 };
                cpu.swiglu_forward(op).unwrap();
                let want = quantized(cpu, &out, (rows, cols), rotated);
                assert_eq!(planes(&fused), want, "[{rows}, {cols}], rotated: {rotated}");
            }
            let dy = put(cpu, &dy);
            cpu.swiglu_backward(SwigluBackward { dy: &dy, gate: &mut gate, up: &mut up }).unwrap();
            vec![get(&out), get(&gate), get(&up)]
        });
        let (gate, up, dy) = (widen(&gate), widen(&up), widen(&dy));
        let (dgate, dup) = reference::swiglu_backward(&dy, &gate, &up);
        // Sigmoid of large negative numbers is 1 / exp of a number that keeps f32's relative error; below -87 it
        // stops at 4e-39, times a gate of 1e30.
        let forward = Tolerance {
            reason: "an exp, a sum, a quotient and two products",
            absolute: 1e-8,
            relative: 8.0 * 2f64.powi(-24),
        };
        forward.assert("out", &got[0], &reference::swiglu(&gate, &up));
        forward.assert("dup", &got[2], &dup);
        // 1 - s and s + g s (1 - s) cancel: the error is that of terms of size |dy * up| * 1.1.
        let size = dy.iter().zip(&up).fold(1.0, |a: f64, (dy, up)| a.max((dy * up).abs()));
        Tolerance::roundings("cancelling terms of size 1", 12.0, size)
            .assert("dgate", &got[1], &dgate);
    }
}

#[test]
fn rope_turns_forth_and_back() {
    for (tokens, heads, half, rest, far) in [
        (1, 1, 1, 0, 0),
        (3, 2, 4, 0, 10),
        (100, 3, 5, 3, 1),
        (257, 2, 32, 0, 1),
        (5, 4, 40, 32, 100_000),
        (2, 2, 0, 6, 1),
    ] {
        let mut rng = TestRng::new(tokens as u64);
        let size = 2 * half + rest;
        let x = rng.normals(tokens * heads * size, 1.0);
        let positions: Vec<u32> = (0..tokens as u32).map(|t| far * t % 131_072 + t % 50).collect();
        let inv_freq: Vec<f32> =
            (0..half).map(|i| 1e4f32.powf(-(i as f32) / half as f32)).collect();
        for scale in [1.0, 1.25] {
            let got = agree(|cpu| {
                let mut x = put(cpu, &x);
                let (positions, inv_freq) = (&put(cpu, &positions), &put(cpu, &inv_freq));
                let mut turned = Vec::new();
                for (scale, inverse) in [(scale, false), (1.0 / scale, true)] {
                    let x = &mut x;
                    cpu.rope(Rope { x, positions, inv_freq, heads, size, scale, inverse }).unwrap();
                    turned.push(get(x));
                }
                turned
            });
            // The factor is one rounding more, and makes the largest value larger.
            let (count, largest) = if scale == 1.0 { (4.0, 4.0) } else { (5.0, 5.0) };
            let tolerance =
                Tolerance::roundings("roundings of cosine, sine and two products", count, largest);
            let (wide, inv_freq) = (widen(&x), widen(&inv_freq));
            let scale = f64::from(scale);
            let want = reference::rope(&wide, &positions, &inv_freq, (heads, size), scale, false);
            tolerance.assert("turned", &got[0], &want);
            tolerance.assert("turned back", &got[1], &wide);
        }
    }
}

#[test]
fn biases_are_added_and_their_gradients_summed() {
    for (tokens, width) in [(0, 3), (1, 1), (3, 7), (64, 5), (65, 300), (200, 17)] {
        let mut rng = TestRng::new(tokens as u64);
        let (y, bias) = (rng.normals(tokens * width, 1.0), rng.normals(width, 1.0));
        let got = agree(|cpu| {
            let (mut y, bias) = (put(cpu, &y), &put(cpu, &bias));
            cpu.add_bias(AddBias { y: &mut y, bias }).unwrap();
            let mut dbias = put(cpu, &vec![1.0; width]);
            cpu.bias_gradient(BiasGradient { dy: &y, dbias: &mut dbias }).unwrap();
            vec![get(&y), get(&dbias)]
        });
        let one = Tolerance::roundings("one sum", 1.0, 4.0);
        one.assert("y", &got[0], &reference::add_bias(&widen(&y), &widen(&bias)));
        let sums = reference::bias_gradient(&widen(&got[0]), width);
        let want: Vec<f64> = sums.iter().map(|sum| 1.0 + sum).collect();
        let sums = Tolerance::roundings("a sum of all tokens", 1.0 + tokens as f64, 60.0);
        sums.assert("dbias", &got[1], &want);
    }
}

#[test]
fn scaled_sums_are_fused() {
    let mut rng = TestRng::new(9);
    let (src, dst) = (rng.normals(40_001, 1.0), rng.normals(40_001, 1.0));
    let got = agree(|cpu| {
        let (src, mut dst) = (&put(cpu, &src), put(cpu, &dst));
        cpu.scaled_add(ScaledAdd { src, scale: 0.22, dst: &mut dst }).unwrap();
        vec![get(&dst)]
    });
    let want: Vec<f32> = src.iter().zip(&dst).map(|(src, dst)| src.mul_add(0.22, *dst)).collect();
    assert_eq!(bits(&got[0]), bits(&want));
}

#[test]
fn rope_has_the_same_bits_alone_and_in_a_batch() {
    let cpu = best();
    let mut rng = TestRng::new(7);
    let (tokens, half) = (300, 16);
    let x = rng.normals(tokens * 2 * half, 1.0);
    let inv_freq: Vec<f32> = (0..half).map(|i| 0.7f32.powi(i as i32)).collect();
    let inv_freq = put(&cpu, &inv_freq);
    let run = |x: &[f32], positions: &[u32]| {
        let (mut x, positions) = (put(&cpu, x), &put(&cpu, positions));
        let (inv_freq, heads, size) = (&inv_freq, 1, 2 * half);
        let op = Rope { x: &mut x, positions, inv_freq, heads, size, scale: 1.0, inverse: false };
        cpu.rope(op).unwrap();
        get(&x)
    };
    let batch = run(&x, &(0..tokens as u32).collect::<Vec<_>>());
    for t in [0, 1, 63, 64, 299] {
        let row = t * 2 * half..(t + 1) * 2 * half;
        assert_eq!(bits(&run(&x[row.clone()], &[t as u32])), bits(&batch[row]), "token {t}");
    }
}

#[test]
fn bf16_rounds_as_half_does_and_returns() {
    let mut rng = TestRng::new(8);
    let mut x = rng.normals(40_001, 1.0);
    x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE / 2.0]);
    let want: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    for (name, cpu) in all() {
        let mut narrow = put(&cpu, &vec![bf16::ZERO; x.len()]);
        cpu.to_bf16(ToBf16 { src: &put(&cpu, &x), dst: &mut narrow }).unwrap();
        assert_eq!(get(&narrow), want, "{name}");
        let mut wide = garbage(&cpu, x.len());
        cpu.from_bf16(FromBf16 { src: &narrow, dst: &mut wide }).unwrap();
        let exact: Vec<f32> = want.iter().map(|x| x.to_f32()).collect();
        assert_eq!(bits(&get(&wide)), bits(&exact), "{name}");
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let cpu = best();
    let (x, gain) = (garbage(&cpu, 12), garbage(&cpu, 4));
    let (mut rstd, mut out) = (garbage(&cpu, 3), garbage(&cpu, 11));
    let out = ActivationsOut::Float(&mut out);
    let op = RmsNormForward { x: &x, gain: &gain, eps: 0.0, rstd: &mut rstd, out };
    assert!(cpu.rmsnorm_forward(op).is_err());
    let mut by_column =
        QMatrix::alloc(&cpu, Owner::Activations, "test", (3, 4), ScaleAxis::Column).unwrap();
    let out = ActivationsOut::Int8(&mut by_column);
    assert!(cpu.swiglu_forward(SwigluForward { gate: &x, up: &x, rows: 3, out }).is_err());
    let mut turned = int8(&cpu, (4, 3), false);
    let out = ActivationsOut::Int8(&mut turned);
    assert!(cpu.swiglu_forward(SwigluForward { gate: &x, up: &x, rows: 3, out }).is_err());
}
