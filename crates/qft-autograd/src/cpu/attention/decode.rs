//! Attention of new tokens to a cache: one row of scores at a time.

use super::{group, score_scale};
use crate::Error;
use crate::cpu::exp::exp;
use crate::cpu::lanes::{self, with_scratch};
use crate::ops::{AttentionDecode, Heads};
use qft_tensor::numeric::LANES;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// One query of one head.
struct Query<'a> {
    q: &'a [f32],
    /// Keys of the head, `stride` apart.
    k: &'a [f32],
    /// Values of the head.
    v: &'a [f32],
    stride: usize,
    scale: f32,
    /// One score per key.
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Query<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { q, k, v, stride, scale, scores, out } = self;
        let size = q.len();
        for (i, score) in scores.iter_mut().enumerate() {
            *score = lanes::dot(q, &k[i * stride..][..size]) * scale;
        }
        let max = lanes::max(scores);
        let mut sums = [0.0f32; LANES];
        for chunk in scores.chunks_mut(LANES) {
            for (sum, score) in sums.iter_mut().zip(chunk) {
                *score = exp(*score - max);
                *sum += *score;
            }
        }
        out.fill(0.0);
        for (i, &score) in scores.iter().enumerate() {
            for (out, &v) in out.iter_mut().zip(&v[i * stride..][..size]) {
                *out = score.mul_add(v, *out);
            }
        }
        let inverse = 1.0 / lanes::sum(sums);
        for out in out {
            *out *= inverse;
        }
    }
}

pub(crate) fn decode(cpu: &Cpu, op: AttentionDecode<'_>) -> Result<(), Error> {
    op.check()?;
    let AttentionDecode { q, k, v, past, heads, out } = op;
    let group = group("attention_decode", heads)?;
    let Heads { query, key_value, size } = heads;
    if q.is_empty() {
        return Ok(());
    }
    let (isa, q, k, v) = (cpu.isa(), q.host()?, k.host()?, v.host()?);
    let tasks = out.host_mut()?.par_chunks_mut(size).zip(q.par_chunks(size)).enumerate();
    cpu.for_each(tasks.with_max_len(1), |(i, (out, q))| {
        let first = i % query / group * size;
        with_scratch(past + i / query + 1, |scores| {
            isa.run(Query {
                q,
                k: &k[first..],
                v: &v[first..],
                stride: key_value * size,
                scale: score_scale(heads),
                scores,
                out,
            });
        });
    });
    Ok(())
}
