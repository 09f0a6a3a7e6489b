//! Attention against f64 and against the CPU: head sizes on tensor cores within the rounding of their bf16 operands, all
//! others within f32's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{alloc, bits, cpu, devices_under_test, emulator, upload};
use qft_autograd::ops::{AttentionBackward, AttentionDecode, AttentionForward, Operands};
use qft_autograd::{Heads, LayerOps, Segments};
use qft_testing::reference::{Attention, dot, widen};
use qft_testing::rng::TestRng;
use qft_testing::tolerance::{Tolerance, UNIT};

/// Unit roundoff of bf16, 8 bits of significand.
const BF16_UNIT: f64 = 1.0 / 256.0;

/// `(lengths of documents, (query heads, key/value heads, head size))`.
type Shape = (&'static [usize], (usize, usize, usize));

/// Head sizes of the tensor-core kernels: one token, a tile of 64 and both its neighbours, several documents, groups.
const BF16_SHAPES: &[Shape] = &[
    (&[1], (2, 1, 64)),
    (&[63, 1, 64, 65], (2, 1, 64)),
    (&[130, 3], (2, 2, 128)),
    (&[66], (6, 2, 32)),
    (&[5, 65], (2, 1, 80)),
    (&[40], (1, 1, 96)),
];

/// Any other head size: below and above a warp, odd, even but no multiple of four, and wide.
const F32_SHAPES: &[Shape] = &[
    (&[1], (3, 1, 8)),
    (&[31, 33, 32], (2, 1, 8)),
    (&[65, 1, 64], (4, 2, 16)),
    (&[9, 70], (2, 1, 5)),
    (&[34], (2, 2, 10)),
    (&[35], (1, 1, 172)),
];

struct Case {
    shape: Attention,
    heads: Heads,
    operands: Operands,
    segments: Segments,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

struct Forward {
    out: Vec<f32>,
    lse: Vec<f32>,
}

struct Backward {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Case {
    /// Normal inputs, as bf16 holds them if `rounded`.
    fn new(seed: u64, (lengths, (query, key_value, size)): Shape, rounded: bool) -> Self {
        let mut rng = TestRng::new(seed);
        let mut borders = vec![0];
        for length in lengths {
            borders.push(borders[borders.len() - 1] + length);
        }
        let tokens = borders[borders.len() - 1];
        let mut normals = |heads: usize| {
            let mut values = rng.normals(tokens * heads * size, 1.0);
            if rounded {
                values.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
            }
            values
        };
        Self {
            segments: Segments::new(borders.clone()).unwrap(),
            shape: Attention { borders, query, key_value, size },
            heads: Heads { query, key_value, size },
            operands: Operands::Bf16,
            q: normals(query),
            k: normals(key_value),
            v: normals(key_value),
            dout: normals(query),
        }
    }

    fn forward(&self, ops: &dyn LayerOps) -> Forward {
        let (q, k, v) = (&upload(ops, &self.q), &upload(ops, &self.k), &upload(ops, &self.v));
        let mut lse = alloc(ops, self.segments.tokens() * self.heads.query);
        let mut out = alloc(ops, self.q.len());
        let (segments, heads, operands) = (&self.segments, self.heads, self.operands);
        ops.attention_forward(AttentionForward {
            q,
            k,
            v,
            segments,
            heads,
            operands,
            lse: &mut lse,
            out: &mut out,
        })
        .unwrap();
        Forward { out: out.to_vec(ops).unwrap(), lse: lse.to_vec(ops).unwrap() }
    }

    fn backward(&self, ops: &dyn LayerOps, forward: &Forward) -> Backward {
        let [dq, dk, dv] = &mut [&self.q, &self.k, &self.v].map(|x| alloc(ops, x.len()));
        ops.attention_backward(AttentionBackward {
            q: &upload(ops, &self.q),
            k: &upload(ops, &self.k),
            v: &upload(ops, &self.v),
            out: &upload(ops, &forward.out),
            lse: &upload(ops, &forward.lse),
            dout: &upload(ops, &self.dout),
            segments: &self.segments,
            heads: self.heads,
            operands: self.operands,
            dq,
            dk,
            dv,
        })
        .unwrap();
        let [dq, dk, dv] = [dq, dk, dv].map(|x| x.to_vec(ops).unwrap());
        Backward { dq, dk, dv }
    }

    /// In f64: `[out, lse, dq, dk, dv]`.
    fn reference(&self) -> [Vec<f64>; 5] {
        let (q, k, v) = (widen(&self.q), widen(&self.k), widen(&self.v));
        let (out, lse) = self.shape.forward(&q, &k, &v);
        let (dq, dk, dv) = self.shape.backward((&q, &k, &v), &widen(&self.dout));
        [out, lse, dq, dk, dv]
    }

    /// The sums of the backward pass over magnitudes: what the roundings of probabilities and of score gradients are
    /// relative to. `[dq, dk, dv]`.
    fn magnitudes(&self) -> [Vec<f64>; 3] {
        let (q, k, v, dout) = (widen(&self.q), widen(&self.k), widen(&self.v), widen(&self.dout));
        let Heads { query, key_value, size } = self.heads;
        let scale = 1.0 / (size as f64).sqrt();
        let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|x| vec![0.0; x.len()]);
        let (out, lse) = self.shape.forward(&q, &k, &v);
        for border in self.shape.borders.windows(2) {
            for (head, t) in (0..query).flat_map(|h| (border[0]..border[1]).map(move |t| (h, t))) {
                let row = (t * query + head) * size;
                let (q_row, g_row) = (&q[row..][..size], &dout[row..][..size]);
                let delta = dot(g_row, &out[row..][..size]);
                for j in border[0]..=t {
                    let key = (j * key_value + head / (query / key_value)) * size;
                    let score = dot(q_row, &k[key..][..size]) * scale;
                    let p = (score - lse[t * query + head]).exp();
                    let ds = (p * (dot(g_row, &v[key..][..size]) - delta) * scale).abs();
                    for d in 0..size {
                        dq[row + d] += ds * k[key + d].abs();
                        dk[key + d] += ds * q_row[d].abs();
                        dv[key + d] += p * g_row[d].abs();
                    }
                }
            }
        }
        [dq, dk, dv]
    }
}

/// Asserts that each element is within its own bound.
#[track_caller]
fn assert_within(what: &str, got: &[f32], want: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let share = |i: usize| (f64::from(got[i]) - want[i]).abs() / bound(i);
    // NaN is infinitely wrong.
    let worst = (0..got.len()).map(|i| if got[i].is_nan() { f64::INFINITY } else { share(i) });
    let worst = worst.fold(0.0, f64::max);
    assert!(worst <= 1.0, "{what}: {worst:.2} times the bound");
}

#[test]
fn tensor_cores_are_exact_but_for_the_rounding_of_weights() {
    for (seed, &shape) in BF16_SHAPES.iter().enumerate() {
        // Inputs that bf16 holds: what is left are the roundings of p and ds, each within the unit roundoff of bf16, and
        // those of f32 sums as in the CPU's own test.
        let case = Case::new(seed as u64, shape, true);
        let [out, lse, dq, dk, dv] = case.reference();
        let v_magnitude: Vec<f64> = case.v.iter().map(|x| f64::from(x.abs())).collect();
        let (weighted, _) = case.shape.forward(&widen(&case.q), &widen(&case.k), &v_magnitude);
        let [dq_size, dk_size, dv_size] = case.magnitudes();
        let (sums, gradient_sums) = (30.0 * UNIT, 200.0 * UNIT);
        for (name, device) in devices_under_test() {
            let what = |part: &str| format!("{part} of {shape:?} on {name}");
            let got = case.forward(&device);
            assert_within(&what("out"), &got.out, &out, |i| BF16_UNIT * weighted[i] + sums);
            assert_within(&what("lse"), &got.lse, &lse, |_| sums);
            // From exact results of the forward pass, so that its errors do not count twice.
            let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let exact = Forward { out: narrow(&out), lse: narrow(&lse) };
            let got = case.backward(&device, &exact);
            for (part, got, want, size) in [
                ("dq", &got.dq, &dq, &dq_size),
                ("dk", &got.dk, &dk, &dk_size),
                ("dv", &got.dv, &dv, &dv_size),
            ] {
                let bound = |i: usize| BF16_UNIT * size[i] + gradient_sums;
                assert_within(&what(part), got, want, bound);
            }
        }
    }
}

#[test]
fn tensor_cores_round_their_inputs_to_bf16() {
    // Rounding to bf16 moves a number by 0.42 units of its roundoff, root mean square. A score is a sum of D products of
    // two such numbers over sqrt(D): off by 0.6 units, and 4 units are six sigma, which lse may be off by. A result is off
    // by that times p (v - out), about 1 at most, and by the roundings of v and p: 8. Gradients are products of two
    // factors that are off by so much: 16.
    let case = Case::new(20, (&[70, 20], (4, 2, 64)), false);
    let want = case.reference();
    let on_cpu = case.forward(&cpu());
    for (name, device) in devices_under_test() {
        let forward = case.forward(&device);
        let backward = case.backward(&device, &forward);
        let got = [&forward.out, &forward.lse, &backward.dq, &backward.dk, &backward.dv];
        let units = [8.0, 4.0, 16.0, 16.0, 16.0];
        for ((part, got), (want, units)) in
            ["out", "lse", "dq", "dk", "dv"].iter().zip(got).zip(want.iter().zip(units))
        {
            let bound = units * BF16_UNIT;
            assert_within(&format!("{part} on {name}"), got, want, |_| bound);
        }
        let on_cpu = widen(&on_cpu.out);
        assert_within(&format!("out on {name}"), &forward.out, &on_cpu, |_| 8.0 * BF16_UNIT);
    }
}

#[test]
fn other_head_sizes_and_the_reference_keep_f32() {
    // As the CPU's own test: chains of sums over keys, queries, heads and the head size.
    let result = Tolerance::roundings("sums over the head and over keys", 30.0, 1.0);
    let gradient = Tolerance::roundings("sums over heads, queries and keys", 200.0, 1.0);
    let reference: Shape = (&[70, 20], (4, 2, 64));
    let shapes = F32_SHAPES.iter().map(|&shape| (shape, Operands::Bf16));
    let shapes = shapes.chain([(reference, Operands::F32)]);
    for (seed, (shape, operands)) in shapes.enumerate() {
        let case = Case { operands, ..Case::new(seed as u64, shape, false) };
        let want = case.reference();
        let tolerances = [result, result, gradient, gradient, gradient];
        for (name, device) in devices_under_test() {
            let forward = case.forward(&device);
            let backward = case.backward(&device, &forward);
            let got = [&forward.out, &forward.lse, &backward.dq, &backward.dk, &backward.dv];
            for ((part, got), (want, tolerance)) in
                ["out", "lse", "dq", "dk", "dv"].iter().zip(got).zip(want.iter().zip(tolerances))
            {
                tolerance.assert(&format!("{part} of {shape:?} on {name}"), got, want);
            }
        }
    }
}

#[test]
fn the_order_of_warps_leaves_no_trace() {
    for shape in [(&[70, 3][..], (4, 2, 32)), (&[40], (2, 1, 12))] {
        let case = Case::new(30, shape, false);
        let [first, second] = [3, 4].map(|seed| {
            let device = emulator(seed);
            let forward = case.forward(&device);
            let Backward { dq, dk, dv } = case.backward(&device, &forward);
            [forward.out, forward.lse, dq, dk, dv].map(|x| bits(&x))
        });
        assert_eq!(first, second, "{shape:?}");
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    for shape in [(&[70][..], (1, 1, 64)), (&[70], (1, 1, 16))] {
        let mut case = Case::new(9, shape, true);
        for x in case.q.iter_mut().chain(&mut case.k) {
            *x *= 16.0;
        }
        let want = case.reference();
        let got = case.forward(&emulator(0));
        let v_magnitude: Vec<f64> = case.v.iter().map(|x| f64::from(x.abs())).collect();
        let (weighted, _) = case.shape.forward(&widen(&case.q), &widen(&case.k), &v_magnitude);
        // Scores up to 2000: their roundings, of that size, are relative errors of the weights, as in the CPU's test.
        let bound = |i: usize| BF16_UNIT * weighted[i] + 1000.0 * UNIT;
        assert_within(&format!("{shape:?}"), &got.out, &want[0], bound);
        assert!(case.backward(&emulator(0), &got).dq.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn decoding_equals_the_forward_pass() {
    for (n, past, (query, key_value, size)) in [
        (1, 0, (1, 1, 2)),
        (1, 70, (4, 2, 64)),
        (5, 0, (2, 1, 80)),
        (33, 20, (3, 3, 7)),
        (2, 600, (2, 1, 128)),
    ] {
        let lengths: &'static [usize] = Box::leak(Box::new([past + n]));
        let case = Case::new(n as u64, (lengths, (query, key_value, size)), false);
        let want = &case.reference()[0][past * query * size..];
        for (name, device) in devices_under_test() {
            // Rows that are not filled yet.
            let room = vec![f32::NAN; 3 * key_value * size];
            let k = upload(&device, &[&case.k[..], &room].concat());
            let v = upload(&device, &[&case.v[..], &room].concat());
            let q = upload(&device, &case.q[past * query * size..]);
            let mut out = alloc(&device, q.len());
            let heads = case.heads;
            let op = AttentionDecode { q: &q, k: &k, v: &v, past, heads, out: &mut out };
            device.attention_decode(op).unwrap();
            let tolerance = Tolerance::roundings("sums over the head and over keys", 30.0, 1.0);
            tolerance.assert(&name, &out.to_vec(&device).unwrap(), want);
        }
    }
}

#[test]
fn what_cannot_be_computed_is_an_error() {
    let device = emulator(0);
    let decode = |heads: Heads| {
        let q = alloc(&device, heads.query * heads.size);
        let kv = alloc(&device, heads.key_value * heads.size);
        let mut out = alloc(&device, q.len());
        let op = AttentionDecode { q: &q, k: &kv, v: &kv, past: 0, heads, out: &mut out };
        device.attention_decode(op).unwrap_err().to_string()
    };
    let error = decode(Heads { query: 3, key_value: 2, size: 4 });
    assert!(error.contains("query heads in multiples of key/value heads"), "{error}");
    let error = decode(Heads { query: 1, key_value: 1, size: 30_000 });
    assert!(error.contains("shared memory"), "{error}");
}
