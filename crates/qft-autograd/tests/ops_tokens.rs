//! Embedding, gather, scatter and cross-entropy against their f64 references, and bit for bit across instruction sets.

mod ops_common;

use ops_common::{all, best, bits, garbage, get, put};
use qft_autograd::ops::{
    EmbedBackward, EmbedForward, GatherRows, LossGradient, LossStats, ScatterRows,
};
use qft_autograd::{Error, LayerOps, TableRef};
use qft_quant::{DecodeRows, HybridFormat, HybridMatrix, HybridOps, Precision, Residual};
use qft_testing::reference::{self, widen};
use qft_testing::rng::TestRng;
use qft_testing::tolerance::Tolerance;
use std::ops::Range;

#[test]
fn embedding_moves_rows() {
    let mut rng = TestRng::new(1);
    let (vocab, channels) = (50, 19);
    let table = rng.normals(vocab * channels, 1.0);
    let ids: Vec<u32> = (0..70).map(|_| rng.below(vocab) as u32).chain([0, 49]).collect();
    let want = reference::embedding(&widen(&table), &ids, channels);
    for (name, cpu) in all() {
        let (table, ids) = (put(&cpu, &table), put(&cpu, &ids));
        let mut out = garbage(&cpu, ids.len() * channels);
        let table = TableRef::Float(&table);
        cpu.embed_forward(EmbedForward { ids: &ids, table, vocab, channels, out: &mut out })
            .unwrap();
        assert_eq!(widen(&get(&out)), want, "{name}");
    }
}

#[test]
fn hybrid_embedding_reads_all_planes() {
    let cpu = best();
    let mut rng = TestRng::new(2);
    let (vocab, channels) = (30, 300);
    let weights = rng.normals(vocab * channels, 1.0);
    for residual in [Residual::None, Residual::Bits4, Residual::Bits8] {
        let format = HybridFormat { residual, protected_fraction: 0.01, rotated: false };
        let mut read = |rows: Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&weights[rows.start * channels..rows.end * channels]);
            Ok::<_, qft_quant::Error>(())
        };
        let (table, _) = HybridMatrix::encode(&cpu, (vocab, channels), format, &mut read).unwrap();
        let mut all = garbage(&cpu, vocab * channels);
        cpu.decode_rows(DecodeRows {
            weight: &table,
            rows: 0..vocab,
            precision: Precision::Full,
            out: all.mat_mut(vocab, channels).unwrap(),
        })
        .unwrap();
        let ids = [3, 29, 0, 3];
        let want = reference::embedding(&widen(&get(&all)), &ids, channels);
        let mut out = garbage(&cpu, ids.len() * channels);
        let ids = put(&cpu, &ids);
        let table = TableRef::Hybrid(&table);
        cpu.embed_forward(EmbedForward { ids: &ids, table, vocab, channels, out: &mut out })
            .unwrap();
        assert_eq!(widen(&get(&out)), want, "{residual:?}");
    }
}

#[test]
fn embedding_gradient_adds_rows_in_order() {
    let mut rng = TestRng::new(3);
    let (vocab, channels) = (100, 7);
    // Some rows often, most never.
    let ids: Vec<u32> = (0..200).map(|_| (rng.below(10) * rng.below(12)) as u32).collect();
    let dy = rng.normals(ids.len() * channels, 1.0);
    let before = rng.normals(vocab * channels, 1.0);
    let mut want = reference::embedding_backward(&ids, &widen(&dy), vocab, channels);
    want.iter_mut().zip(&before).for_each(|(x, b)| *x += f64::from(*b));
    // The same additions in the same order, in f32.
    let mut exact = before.clone();
    for (t, &id) in ids.iter().enumerate() {
        for c in 0..channels {
            exact[id as usize * channels + c] += dy[t * channels + c];
        }
    }
    for (name, cpu) in all() {
        let mut got = Vec::new();
        for rows in [0..1, 1..40, 40..100] {
            let part = &before[rows.start * channels..rows.end * channels];
            let mut grad = put(&cpu, part);
            let (ids, dy) = (put(&cpu, &ids), put(&cpu, &dy));
            let view = grad.mat_mut(rows.len(), channels).unwrap();
            cpu.embed_backward(EmbedBackward { ids: &ids, dy: &dy, rows, grad: view }).unwrap();
            got.extend(get(&grad));
        }
        assert_eq!(bits(&got), bits(&exact), "{name}");
        // About 20 additions to the commonest row.
        Tolerance::roundings("sums of up to 40 terms", 40.0, 4.0).assert(&name, &got, &want);
    }
}

#[test]
fn gather_and_scatter_are_transposes() {
    let mut rng = TestRng::new(4);
    let (tokens, channels) = (40, 5);
    let src = rng.normals(tokens * channels, 1.0);
    let index: Vec<u32> = (0..tokens as u32).filter(|t| t % 3 == 1).rev().collect();
    for (name, cpu) in all() {
        let index_buffer = put(&cpu, &index);
        let mut out = garbage(&cpu, index.len() * channels);
        let (src_buffer, index_ref) = (put(&cpu, &src), &index_buffer);
        cpu.gather_rows(GatherRows { src: &src_buffer, index: index_ref, channels, out: &mut out })
            .unwrap();
        let want = reference::embedding(&widen(&src), &index, channels);
        assert_eq!(widen(&get(&out)), want, "{name}");
        let mut back = garbage(&cpu, tokens * channels);
        cpu.scatter_rows(ScatterRows { src: &out, index: index_ref, channels, dst: &mut back })
            .unwrap();
        let kept: Vec<f32> = (src.iter().enumerate())
            .map(|(i, &x)| if i / channels % 3 == 1 { x } else { 0.0 })
            .collect();
        assert_eq!(get(&back), kept, "{name}");
    }
}

#[test]
fn indices_out_of_range_are_errors() {
    let cpu = best();
    let (table, ids) = (garbage(&cpu, 10), put(&cpu, &[4, 5]));
    let mut out = garbage(&cpu, 4);
    let float = TableRef::Float(&table);
    let op = EmbedForward { ids: &ids, table: float, vocab: 5, channels: 2, out: &mut out };
    let error = cpu.embed_forward(op).unwrap_err();
    assert!(matches!(error, Error::IndexOutOfRange { id: 5, position: 1, len: 5, .. }), "{error}");
    let op = GatherRows { src: &table, index: &ids, channels: 2, out: &mut out };
    assert!(matches!(cpu.gather_rows(op), Err(Error::IndexOutOfRange { .. })));
    let mut dst = garbage(&cpu, 10);
    let op = ScatterRows { src: &out, index: &ids, channels: 2, dst: &mut dst };
    assert!(matches!(cpu.scatter_rows(op), Err(Error::IndexOutOfRange { .. })));
}

#[test]
fn loss_by_blocks() {
    let mut rng = TestRng::new(5);
    for (rows, vocab, block) in [(1, 1, 1), (3, 10, 3), (17, 100, 33), (5, 1000, 1000)] {
        let mut logits = rng.normals(rows * vocab, 4.0);
        // A row of large logits, and one whose probabilities mostly vanish.
        logits[..vocab].iter_mut().for_each(|x| *x += 3e4);
        let last = logits.len() - 1;
        logits[last] += 200.0;
        let mut targets: Vec<u32> = (0..rows).map(|_| rng.below(vocab) as u32).collect();
        targets[rows - 1] = vocab as u32 - 1;
        let weight = 1.0 / rows as f32;
        let mut first: Option<Vec<u32>> = None;
        for (name, cpu) in all() {
            let targets_buffer = put(&cpu, &targets);
            let (mut max, mut sum) = (garbage(&cpu, rows), garbage(&cpu, rows));
            let mut target_logit = garbage(&cpu, rows);
            let starts = (0..vocab).step_by(block);
            let part = |start: usize| -> Vec<f32> {
                let cols = start..(start + block).min(vocab);
                logits.chunks(vocab).flat_map(|row| row[cols.clone()].to_vec()).collect()
            };
            for start in starts.clone() {
                let cols = block.min(vocab - start);
                cpu.loss_stats(LossStats {
                    logits: &put(&cpu, &part(start)),
                    start,
                    cols,
                    targets: &targets_buffer,
                    max: &mut max,
                    sum: &mut sum,
                    target_logit: &mut target_logit,
                })
                .unwrap();
            }
            let mut gradient = vec![0.0; rows * vocab];
            for start in starts {
                let cols = block.min(vocab - start);
                let mut logits = put(&cpu, &part(start));
                cpu.loss_gradient(LossGradient {
                    logits: &mut logits,
                    start,
                    cols,
                    targets: &targets_buffer,
                    max: &max,
                    sum: &sum,
                    weight,
                })
                .unwrap();
                for (row, part) in gradient.chunks_mut(vocab).zip(get(&logits).chunks(cols)) {
                    row[start..start + cols].copy_from_slice(part);
                }
            }
            let loss: f64 = (get(&max).iter().zip(get(&sum)).zip(get(&target_logit)))
                .map(|((&max, sum), target)| f64::from(max - target) + f64::from(sum).ln())
                .sum::<f64>()
                * f64::from(weight);
            let wide = widen(&logits);
            let want = reference::cross_entropy(&wide, &targets, f64::from(weight));
            let sums = Tolerance::roundings("a sum of exponentials, and its logarithm", 16.0, 4.0);
            sums.assert(&format!("loss, {name}"), &[loss], &[want]);
            let want = reference::cross_entropy_backward(&wide, &targets, f64::from(weight));
            let sums = Tolerance::roundings("exp, a sum, a quotient", 16.0, f64::from(weight));
            sums.assert(&format!("gradient, {name}"), &gradient, &want);
            let all_bits = [bits(&gradient), bits(&get(&sum)), bits(&get(&target_logit))].concat();
            let want = first.get_or_insert_with(|| all_bits.clone());
            assert_eq!(&all_bits, want, "{name}");
        }
    }
}

#[test]
fn a_target_beyond_the_vocabulary_does_not_panic() {
    let cpu = best();
    let targets = put(&cpu, &[u32::MAX, 7]);
    let (mut max, mut sum) = (garbage(&cpu, 2), garbage(&cpu, 2));
    let mut target_logit = garbage(&cpu, 2);
    let mut logits = put(&cpu, &[0.5; 6]);
    cpu.loss_stats(LossStats {
        logits: &logits,
        start: 0,
        cols: 3,
        targets: &targets,
        max: &mut max,
        sum: &mut sum,
        target_logit: &mut target_logit,
    })
    .unwrap();
    // Three logits of 1/2: their maximum, and a sum of three exponentials of 0. No target was seen.
    assert_eq!((get(&max), get(&sum)), (vec![0.5; 2], vec![3.0; 2]));
    {
        let (targets, max, sum) = (&targets, &max, &sum);
        let logits = &mut logits;
        let op = LossGradient { logits, start: 0, cols: 3, targets, max, sum, weight: 1.0 };
        cpu.loss_gradient(op).unwrap();
    }
    // The softmax alone: no column is a target's.
    assert_eq!(get(&logits), [1.0 / 3.0; 6]);
}
