//! The backward pass: one task per key/value head of a segment, so that every sum has one owner.

use super::product::{Left, columns, rows};
use super::{
    CHUNK, KEYS, QUERIES, group, head_rows, pack_transposed, score_scale, transpose, visible,
};
use crate::Error;
use crate::cpu::exp::exp;
use crate::cpu::lanes::{self, with_scratch};
use crate::ops::{AttentionBackward, Heads};
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Keys whose sums over queries begin at the same query.
const STRIP: usize = 8;

/// Inputs, each from the first token of the segment on.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    dout: &'a [f32],
    lse: &'a [f32],
}

/// A key/value head of a segment, and the query heads that read it.
struct Group<'a, 'r, const R: usize, const V: usize> {
    x: Inputs<'a>,
    heads: Heads,
    key_value_head: usize,
    scratch: &'a mut [f32],
    /// Per query head, a row per token.
    dq: &'a mut [Vec<&'r mut [f32]>],
    dk: &'a mut [&'r mut [f32]],
    dv: &'a mut [&'r mut [f32]],
}

/// Floats in a row of the operands whose lanes run along the head.
fn padded(size: usize) -> usize {
    size.next_multiple_of(CHUNK)
}

/// Floats of scratch; see [`Scratch`].
fn scratch_len(size: usize, tokens: usize) -> usize {
    let per_query = 3 * size + 2 * padded(size) + 2 * KEYS + 2;
    per_query * QUERIES + 2 * tokens * padded(size)
}

struct Scratch<'a> {
    /// Scaled queries, `[D, QUERIES]`.
    q_columns: &'a mut [f32],
    /// Output gradients, `[D, QUERIES]`.
    g_columns: &'a mut [f32],
    /// Gradient of the scaled queries, `[D, QUERIES]`.
    dq: &'a mut [f32],
    /// Scaled queries, `[QUERIES, padded D]`.
    q_rows: &'a mut [f32],
    /// Output gradients, `[QUERIES, padded D]`.
    g_rows: &'a mut [f32],
    /// Probabilities, `[KEYS, QUERIES]`.
    p: &'a mut [f32],
    /// Gradients of probabilities, then of scores, `[KEYS, QUERIES]`.
    ds: &'a mut [f32],
    lse: &'a mut [f32],
    /// `sum of dout * out`.
    delta: &'a mut [f32],
    /// `[T, padded D]`.
    dk: &'a mut [f32],
    /// `[T, padded D]`.
    dv: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    #[inline(always)]
    fn new(mut rest: &'a mut [f32], size: usize, tokens: usize) -> Self {
        let mut take = |len: usize| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            part
        };
        Self {
            q_columns: take(size * QUERIES),
            g_columns: take(size * QUERIES),
            dq: take(size * QUERIES),
            q_rows: take(padded(size) * QUERIES),
            g_rows: take(padded(size) * QUERIES),
            p: take(KEYS * QUERIES),
            ds: take(KEYS * QUERIES),
            lse: take(QUERIES),
            delta: take(QUERIES),
            dk: take(tokens * padded(size)),
            dv: take(tokens * padded(size)),
        }
    }
}

#[inline(always)]
fn pack_rows(x: &[f32], stride: usize, count: usize, size: usize, factor: f32, out: &mut [f32]) {
    for (i, row) in out.chunks_exact_mut(padded(size)).take(count).enumerate() {
        let (row, padding) = row.split_at_mut(size);
        for (out, &x) in row.iter_mut().zip(&x[i * stride..][..size]) {
            *out = x * factor;
        }
        padding.fill(0.0);
    }
}

impl<const R: usize, const V: usize> Group<'_, '_, R, V> {
    /// Probabilities and score gradients of a chunk of queries: `p`, `ds` `[keys, CHUNK]`.
    #[inline(always)]
    fn scores(
        &self,
        s: &mut Scratch<'_>,
        (first_key, keys): (usize, usize),
        (first_query, offset): (usize, usize),
    ) {
        let (size, stride) = (self.heads.size, self.heads.key_value * self.heads.size);
        let at = first_key * stride + self.key_value_head * size;
        let left = Left { data: &self.x.k[at..], stride, m: keys, k: size };
        let right = (&s.q_columns[offset..], QUERIES);
        rows::<R, V>(left, right, (&mut s.p[offset..], QUERIES), CHUNK, false);
        let left = Left { data: &self.x.v[at..], stride, m: keys, k: size };
        let right = (&s.g_columns[offset..], QUERIES);
        rows::<R, V>(left, right, (&mut s.ds[offset..], QUERIES), CHUNK, false);
        let lanes = offset..offset + CHUNK;
        let (lse, delta) = (&s.lse[lanes.clone()], &s.delta[lanes]);
        for key in 0..keys {
            let p = &mut s.p[key * QUERIES + offset..][..CHUNK];
            let ds = &mut s.ds[key * QUERIES + offset..][..CHUNK];
            let hidden = (first_key + key).saturating_sub(first_query).min(CHUNK);
            p[..hidden].fill(f32::NEG_INFINITY);
            for l in 0..CHUNK {
                p[l] = exp(p[l] - lse[l]);
                ds[l] = p[l] * (ds[l] - delta[l]);
            }
        }
    }

    /// One tile of queries of one head against all its keys.
    #[inline(always)]
    fn tile(&self, s: &mut Scratch<'_>, head: usize, first: usize, len: usize) {
        let Heads { query, key_value, size } = self.heads;
        let (scale, stride) = (score_scale(self.heads), query * size);
        let at = first * stride + head * size;
        pack_transposed(&self.x.q[at..], stride, len, size, scale, s.q_columns);
        pack_transposed(&self.x.dout[at..], stride, len, size, 1.0, s.g_columns);
        pack_rows(&self.x.q[at..], stride, len, size, scale, s.q_rows);
        pack_rows(&self.x.dout[at..], stride, len, size, 1.0, s.g_rows);
        s.dq.fill(0.0);
        for i in 0..QUERIES {
            let row = at + i * stride;
            // Lanes beyond the tile: their gradients are zero, so any finite probability will do.
            (s.lse[i], s.delta[i]) = if i < len {
                let (out, dout) = (&self.x.out[row..][..size], &self.x.dout[row..][..size]);
                (self.x.lse[(first + i) * query + head], lanes::dot(out, dout))
            } else {
                (0.0, 0.0)
            };
        }
        let end = first + len;
        let width = padded(size);
        let kv_stride = key_value * size;
        for first_key in (0..end).step_by(KEYS) {
            let block = KEYS.min(end - first_key);
            for offset in (0..len).step_by(CHUNK) {
                let keys = visible(first_key, block, first + offset, CHUNK);
                if keys == 0 {
                    continue;
                }
                self.scores(s, (first_key, keys), (first + offset, offset));
                let at = first_key * kv_stride + self.key_value_head * size;
                let left = Left { data: &self.x.k[at..], stride: kv_stride, m: size, k: keys };
                let right = (&s.ds[offset..], QUERIES);
                columns::<R, V>(left, right, (&mut s.dq[offset..], QUERIES), CHUNK);
            }
            for strip in (0..block).step_by(STRIP) {
                let seen = (first_key + strip).saturating_sub(first);
                if seen >= len {
                    break;
                }
                let (from, row) = (strip * QUERIES + seen, (first_key + strip) * width);
                let (m, k) = (STRIP.min(block - strip), len - seen);
                let left = Left { data: &s.p[from..], stride: QUERIES, m, k };
                let right = (&s.g_rows[seen * width..], width);
                rows::<R, V>(left, right, (&mut s.dv[row..], width), width, true);
                let left = Left { data: &s.ds[from..], stride: QUERIES, m, k };
                let right = (&s.q_rows[seen * width..], width);
                rows::<R, V>(left, right, (&mut s.dk[row..], width), width, true);
            }
        }
    }
}

impl<const R: usize, const V: usize> Kernel for Group<'_, '_, R, V> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let (size, tokens) = (self.heads.size, self.dk.len());
        let scale = score_scale(self.heads);
        let scratch = std::mem::take(&mut self.scratch);
        let mut s = Scratch::new(scratch, size, tokens);
        s.dk.fill(0.0);
        s.dv.fill(0.0);
        let dq = std::mem::take(&mut self.dq);
        let first_head = self.key_value_head * dq.len();
        for (head, dq) in (first_head..).zip(dq) {
            for (tile, dq) in dq.chunks_mut(QUERIES).enumerate() {
                self.tile(&mut s, head, tile * QUERIES, dq.len());
                // The queries are not needed any more: their place takes the result, row by row.
                transpose((s.dq, QUERIES), (size, dq.len()), scale, (s.q_columns, size));
                for (row, result) in dq.iter_mut().zip(s.q_columns.chunks_exact(size)) {
                    row.copy_from_slice(result);
                }
            }
        }
        let width = padded(size);
        for (row, sums) in self.dk.iter_mut().zip(s.dk.chunks_exact(width)) {
            row.copy_from_slice(&sums[..size]);
        }
        for (row, sums) in self.dv.iter_mut().zip(s.dv.chunks_exact(width)) {
            row.copy_from_slice(&sums[..size]);
        }
    }
}

pub(crate) fn backward(cpu: &Cpu, op: AttentionBackward<'_>) -> Result<(), Error> {
    op.check()?;
    let AttentionBackward { q, k, v, out, lse, dout, segments, heads, dq, dk, dv } = op;
    let Heads { query, key_value, size } = heads;
    let group = group("attention_backward", heads)?;
    if q.is_empty() {
        return Ok(());
    }
    let (q, k, v, lse) = (q.host()?, k.host()?, v.host()?, lse.host()?);
    let (out, dout) = (out.host()?, dout.host()?);
    let mut dq = head_rows(dq.host_mut()?, segments, query, size);
    let mut dk = head_rows(dk.host_mut()?, segments, key_value, size);
    let mut dv = head_rows(dv.host_mut()?, segments, key_value, size);
    let isa = cpu.isa();
    let tasks = (dq.par_chunks_mut(group)).zip(dk.par_iter_mut().zip(&mut dv)).enumerate();
    cpu.for_each(tasks.with_max_len(1), |(index, (dq, (dk, dv)))| {
        let start = segments.borders()[index / key_value];
        let (wide_row, narrow_row) = (start * query * size, start * key_value * size);
        let x = Inputs {
            q: &q[wide_row..],
            k: &k[narrow_row..],
            v: &v[narrow_row..],
            out: &out[wide_row..],
            dout: &dout[wide_row..],
            lse: &lse[start * query..],
        };
        let key_value_head = index % key_value;
        with_scratch(scratch_len(size, dk.len()), |scratch| {
            if isa.wide() {
                isa.run(Group::<'_, '_, 8, 2> { x, heads, key_value_head, scratch, dq, dk, dv });
            } else {
                isa.run(Group::<'_, '_, 4, 1> { x, heads, key_value_head, scratch, dq, dk, dv });
            }
        });
    });
    Ok(())
}
