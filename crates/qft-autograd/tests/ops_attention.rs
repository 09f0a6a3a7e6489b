//! Attention against its f64 reference, at every border of its tiles, and bit for bit across instruction sets.

mod ops_common;

use ops_common::{AttentionCase, all, best, bits, garbage, get, put, run_attention};
use qft_autograd::LayerOps;
use qft_autograd::ops::{AttentionDecode, Heads, Operands};
use qft_testing::reference::widen;
use qft_testing::rng::TestRng;
use qft_testing::tolerance::Tolerance;

/// `(lengths of documents, (query heads, key/value heads, head size))`.
type Case = (&'static [usize], (usize, usize, usize));

/// One token, tile borders and both their neighbours, several documents, grouped heads, sizes off the tile.
const CASES: &[Case] = &[
    (&[1], (1, 1, 2)),
    (&[1], (3, 1, 8)),
    (&[1, 1, 1], (2, 2, 64)),
    (&[7], (2, 1, 8)),
    (&[31, 32, 33], (2, 2, 16)),
    (&[63], (2, 1, 64)),
    (&[64], (1, 1, 64)),
    (&[65], (4, 2, 64)),
    (&[1, 63, 64, 65], (2, 1, 80)),
    (&[127, 2, 128, 129], (1, 1, 10)),
    (&[257], (6, 2, 64)),
    (&[257, 1], (2, 2, 128)),
    (&[100, 300], (4, 1, 6)),
];

#[test]
fn matches_the_reference() {
    // Every result is a chain of sums over at most 300 terms of size about 1, whose errors have random signs;
    // those of the scores, up to 4 in size, enter through exp. Measured: 17 for results, 101 for gradients, whose
    // sums go over queries, heads of a group and the head size in turn.
    let result = Tolerance::roundings("sums over the head and over keys", 30.0, 1.0);
    let gradient = Tolerance::roundings("sums over heads, queries and keys", 200.0, 1.0);
    let cpu = best();
    let mut failures = Vec::new();
    for (seed, &(lengths, heads)) in CASES.iter().enumerate() {
        let case = AttentionCase::new(seed as u64, lengths, heads);
        let (q, k, v) = (widen(&case.q), widen(&case.k), widen(&case.v));
        let (out, lse) = case.shape.forward(&q, &k, &v);
        let (dq, dk, dv) = case.shape.backward((&q, &k, &v), &widen(&case.dout));
        let got = run_attention(&cpu, &case, Operands::F32);
        let checks = [
            ("out", result, out),
            ("lse", result, lse),
            ("dq", gradient, dq),
            ("dk", gradient, dk),
            ("dv", gradient, dv),
        ];
        for ((name, tolerance, want), got) in checks.iter().zip(&got) {
            let name = format!("{lengths:?} {heads:?} {name}");
            failures.extend(tolerance.check(&name, got, want).err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut case = AttentionCase::new(9, &[130], (1, 1, 16));
    for x in case.q.iter_mut().chain(&mut case.k) {
        *x *= 12.0;
    }
    let (out, _) = case.shape.forward(&widen(&case.q), &widen(&case.k), &widen(&case.v));
    // Scores of several hundred: their roundings, of that size, are relative errors of the weights. Measured: 308.
    let tolerance = Tolerance::roundings("roundings of scores up to 2000", 1000.0, 1.0);
    let got = run_attention(&best(), &case, Operands::F32);
    tolerance.assert("out", &got[0], &out);
    assert!(got.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn same_bits_on_all_instruction_sets_and_threads() {
    let cases: &[Case] =
        &[(&[1, 63, 64, 65], (4, 2, 20)), (&[257], (2, 1, 64)), (&[40], (1, 1, 8))];
    for (seed, &(lengths, heads)) in cases.iter().enumerate() {
        let case = AttentionCase::new(100 + seed as u64, lengths, heads);
        for operands in [Operands::F32, Operands::Bf16] {
            let mut first: Option<[Vec<f32>; 5]> = None;
            for (name, cpu) in all() {
                let got = run_attention(&cpu, &case, operands);
                let want = first.get_or_insert_with(|| got.clone());
                for ((got, want), part) in
                    got.iter().zip(want.iter()).zip(["out", "lse", "dq", "dk", "dv"])
                {
                    let what = format!("{part} of {lengths:?} {heads:?} with {name}");
                    assert_eq!(bits(got), bits(want), "{what}, {operands:?}");
                }
            }
        }
    }
}

/// Unit roundoff of bf16.
const BF16_UNIT: f64 = 1.0 / 256.0;

#[test]
fn bf16_operands_cost_their_rounding() {
    // Rounding to bf16 moves a number by 0.42 units of its roundoff, root mean square. A score is a sum of D products of
    // two such numbers over sqrt(D): off by 0.6 units, and 4 units are six sigma, which lse may be off by. A result is off
    // by that times p (v - out), about 1 at most, and by the roundings of v and p: 8. Gradients are products of two
    // factors that are off by so much, and sums over the heads of a group.
    let units = [8.0, 4.0, 16.0, 24.0, 24.0];
    let cpu = best();
    for (seed, &(lengths, heads)) in CASES.iter().enumerate() {
        let case = AttentionCase::new(seed as u64, lengths, heads);
        let (q, k, v) = (widen(&case.q), widen(&case.k), widen(&case.v));
        let (out, lse) = case.shape.forward(&q, &k, &v);
        let (dq, dk, dv) = case.shape.backward((&q, &k, &v), &widen(&case.dout));
        let got = run_attention(&cpu, &case, Operands::Bf16);
        let wants = ["out", "lse", "dq", "dk", "dv"].into_iter().zip([out, lse, dq, dk, dv]);
        for ((got, units), (part, want)) in got.iter().zip(units).zip(wants) {
            let worst = got
                .iter()
                .zip(&want)
                .map(|(&got, want)| (f64::from(got) - want).abs() / BF16_UNIT / want.abs().max(1.0))
                .fold(0.0, f64::max);
            println!("{lengths:?} {heads:?} {part}: {worst:.2} units");
            assert!(worst <= units, "{lengths:?} {heads:?} {part}: {worst:.2} units of bf16");
        }
    }
}

/// With operands that bf16 holds exactly, the products are as exact as those of f32.
#[test]
fn operands_that_are_bf16_already_give_the_scores_of_f32() {
    for (seed, &(lengths, heads)) in CASES.iter().enumerate() {
        let mut case = AttentionCase::new(seed as u64, lengths, heads);
        for x in case.q.iter_mut().chain(&mut case.k) {
            *x = (*x * 8.0).round();
        }
        // Powers of two as factors of the scores.
        if !heads.2.is_power_of_two() || !heads.2.trailing_zeros().is_multiple_of(2) {
            continue;
        }
        let [exact, rounded] = [Operands::F32, Operands::Bf16]
            .map(|operands| run_attention(&best(), &case, operands)[1].clone());
        let same = Tolerance::roundings("sums over keys in another order", 4.0, 1.0);
        let exact: Vec<f64> = widen(&exact);
        same.assert("lse", &rounded, &exact);
    }
}

#[test]
fn decoding_equals_the_forward_pass() {
    for (n, past, (query, key_value, size)) in
        [(1, 0, (1, 1, 2)), (1, 70, (4, 2, 64)), (5, 0, (2, 1, 80)), (33, 20, (3, 3, 8))]
    {
        let total = past + n;
        let case = AttentionCase::new(total as u64, &[total], (query, key_value, size));
        let (want, _) = case.shape.forward(&widen(&case.q), &widen(&case.k), &widen(&case.v));
        let mut first: Option<Vec<f32>> = None;
        for (name, cpu) in all() {
            let room = vec![f32::NAN; 3 * key_value * size];
            let k = put(&cpu, &[&case.k[..], &room].concat());
            let v = put(&cpu, &[&case.v[..], &room].concat());
            let q = put(&cpu, &case.q[past * query * size..]);
            let mut out = garbage(&cpu, q.len());
            let heads = Heads { query, key_value, size };
            cpu.attention_decode(AttentionDecode {
                q: &q,
                k: &k,
                v: &v,
                past,
                heads,
                out: &mut out,
            })
            .unwrap();
            let tolerance = Tolerance::roundings("sums over the head and over keys", 30.0, 1.0);
            tolerance.assert(&name, &get(&out), &want[past * query * size..]);
            let want = first.get_or_insert_with(|| get(&out));
            assert_eq!(bits(&get(&out)), bits(want), "{name}");
        }
    }
}

#[test]
fn wrong_head_counts_are_an_error() {
    let cpu = best();
    let heads = Heads { query: 3, key_value: 2, size: 4 };
    let mut rng = TestRng::new(1);
    let (q, kv) = (put(&cpu, &rng.normals(12, 1.0)), put(&cpu, &rng.normals(8, 1.0)));
    let mut out = garbage(&cpu, 12);
    let op = AttentionDecode { q: &q, k: &kv, v: &kv, past: 0, heads, out: &mut out };
    assert!(cpu.attention_decode(op).is_err());
}
