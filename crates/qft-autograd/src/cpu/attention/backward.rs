//! The backward pass: one task per key/value head of a segment, so that every sum has one owner.

use super::format::{Floats, Format, Pairs};
use super::product::Left;
use super::{
    CHUNK, KEYS, QUERIES, group, head_rows, score_scale, store_columns, transpose, visible,
};
use crate::Error;
use crate::cpu::exp::exp;
use crate::cpu::lanes::{self, with_scratch};
use crate::ops::{AttentionBackward, Heads, Operands};
use qft_tensor::{Cpu, Isa, Kernel};
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
struct Group<'a, 'r, F, const R: usize, const V: usize> {
    format: F,
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

/// Floats of scratch, the most that a format needs; see [`Scratch`].
fn scratch_len(size: usize, tokens: usize) -> usize {
    let (even, width) = (size.next_multiple_of(2), padded(size));
    let per_query = 3 * even + size + 2 * width + 2 * KEYS + 2;
    let per_block = KEYS * 3 * CHUNK;
    let per_token = 2 * even + size + 2 * width;
    per_query * QUERIES + per_block + per_token * tokens.next_multiple_of(2)
}

/// Operands are in the format of the products.
struct Scratch<'a> {
    lines: &'a mut [f32],
    /// Scaled queries, `[stored D, QUERIES]`.
    q_columns: &'a mut [f32],
    /// Output gradients, `[stored D, QUERIES]`.
    g_columns: &'a mut [f32],
    /// Gradient of the scaled queries, f32 `[D, QUERIES]`.
    dq: &'a mut [f32],
    /// Scaled queries, `[stored QUERIES, padded D]`.
    q_rows: &'a mut [f32],
    /// Output gradients, `[stored QUERIES, padded D]`.
    g_rows: &'a mut [f32],
    /// Probabilities of a chunk, f32 `[KEYS, CHUNK]`.
    p: &'a mut [f32],
    /// Gradients of probabilities, then of scores, f32 `[KEYS, CHUNK]`.
    ds: &'a mut [f32],
    /// Those of scores, `[stored KEYS, CHUNK]`.
    ds_columns: &'a mut [f32],
    /// Probabilities of a tile, `[KEYS, stored QUERIES]`.
    p_rows: &'a mut [f32],
    /// Gradients of its scores, `[KEYS, stored QUERIES]`.
    ds_rows: &'a mut [f32],
    lse: &'a mut [f32],
    /// `sum of dout * out`.
    delta: &'a mut [f32],
    /// Keys, `[T, stored D]`.
    k_rows: &'a mut [f32],
    /// Values, `[T, stored D]`.
    v_rows: &'a mut [f32],
    /// Keys, `[stored T, D]`.
    k_columns: &'a mut [f32],
    /// f32 `[T, padded D]`.
    dk: &'a mut [f32],
    /// f32 `[T, padded D]`.
    dv: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    #[inline(always)]
    fn new<F: Format>(mut rest: &'a mut [f32], size: usize, tokens: usize) -> Self {
        let mut take = |len: usize| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            part
        };
        let (stored, width) = (F::stored(size), padded(size));
        Self {
            lines: take(size.next_multiple_of(2) * QUERIES),
            q_columns: take(stored * QUERIES),
            g_columns: take(stored * QUERIES),
            dq: take(size * QUERIES),
            q_rows: take(F::stored(QUERIES) * width),
            g_rows: take(F::stored(QUERIES) * width),
            p: take(KEYS * CHUNK),
            ds: take(KEYS * CHUNK),
            ds_columns: take(F::stored(KEYS) * CHUNK),
            p_rows: take(KEYS * F::stored(QUERIES)),
            ds_rows: take(KEYS * F::stored(QUERIES)),
            lse: take(QUERIES),
            delta: take(QUERIES),
            k_rows: take(tokens * stored),
            v_rows: take(tokens * stored),
            k_columns: take(F::stored(tokens) * size),
            dk: take(tokens * width),
            dv: take(tokens * width),
        }
    }
}

impl<F: Format, const R: usize, const V: usize> Group<'_, '_, F, R, V> {
    /// Keys and values in the format of the products.
    #[inline(always)]
    fn store(&self, s: &mut Scratch<'_>, tokens: usize) {
        let Heads { key_value, size, .. } = self.heads;
        let (stored, stride, at) = (F::stored(size), key_value * size, self.key_value_head * size);
        for (x, rows) in [(self.x.k, &mut *s.k_rows), (self.x.v, &mut *s.v_rows)] {
            self.format.store_along((&x[at..], stride), (tokens, size), 1.0, (rows, stored));
        }
        let k = (&self.x.k[at..], stride);
        self.format.store_across(k, (tokens, size), 1.0, (&mut *s.k_columns, size));
    }

    /// Probabilities and score gradients of a chunk of queries.
    #[inline(always)]
    fn scores(
        &self,
        s: &mut Scratch<'_>,
        (first_key, keys): (usize, usize),
        (first_query, offset): (usize, usize),
    ) {
        let stored = F::stored(self.heads.size);
        let left =
            Left { data: &s.k_rows[first_key * stored..], stride: stored, m: keys, k: stored };
        let right = (&s.q_columns[offset..], QUERIES);
        self.format.rows::<R, V>(left, right, (&mut *s.p, CHUNK), CHUNK, false);
        let left =
            Left { data: &s.v_rows[first_key * stored..], stride: stored, m: keys, k: stored };
        let right = (&s.g_columns[offset..], QUERIES);
        self.format.rows::<R, V>(left, right, (&mut *s.ds, CHUNK), CHUNK, false);
        let lanes = offset..offset + CHUNK;
        let (lse, delta) = (&s.lse[lanes.clone()], &s.delta[lanes]);
        let (row, at) = (F::stored(QUERIES), F::stored(offset));
        for key in 0..keys {
            let p = &mut s.p[key * CHUNK..][..CHUNK];
            let ds = &mut s.ds[key * CHUNK..][..CHUNK];
            let hidden = (first_key + key).saturating_sub(first_query).min(CHUNK);
            p[..hidden].fill(f32::NEG_INFINITY);
            for l in 0..CHUNK {
                p[l] = exp(p[l] - lse[l]);
                ds[l] = p[l] * (ds[l] - delta[l]);
            }
        }
        let shape = (keys, CHUNK);
        self.format.store_along((&*s.p, CHUNK), shape, 1.0, (&mut s.p_rows[at..], row));
        self.format.store_along((&*s.ds, CHUNK), shape, 1.0, (&mut s.ds_rows[at..], row));
        self.format.store_across((&*s.ds, CHUNK), shape, 1.0, (&mut *s.ds_columns, CHUNK));
    }

    /// One tile of queries of one head against all its keys.
    #[inline(always)]
    fn tile(&self, s: &mut Scratch<'_>, head: usize, first: usize, len: usize) {
        let Heads { query, size, .. } = self.heads;
        let (scale, stride, width) = (score_scale(self.heads), query * size, padded(size));
        let at = first * stride + head * size;
        let (q, g) = ((&self.x.q[at..], stride), (&self.x.dout[at..], stride));
        store_columns(self.format, q, (len, size), scale, s.lines, s.q_columns);
        store_columns(self.format, g, (len, size), 1.0, s.lines, s.g_columns);
        self.format.store_across(q, (len, size), scale, (&mut *s.q_rows, width));
        self.format.store_across(g, (len, size), 1.0, (&mut *s.g_rows, width));
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
        for first_key in (0..end).step_by(KEYS) {
            let block = KEYS.min(end - first_key);
            for offset in (0..len).step_by(CHUNK) {
                let keys = visible(first_key, block, first + offset, CHUNK);
                if keys == 0 {
                    continue;
                }
                self.scores(s, (first_key, keys), (first + offset, offset));
                let data = &s.k_columns[F::stored(first_key) * size..];
                let left = Left { data, stride: size, m: size, k: F::stored(keys) };
                let right = (&*s.ds_columns, CHUNK);
                self.format.columns::<R, V>(left, right, (&mut s.dq[offset..], QUERIES), CHUNK);
            }
            for strip in (0..block).step_by(STRIP) {
                // A multiple of the strip, so that no pair is cut.
                let seen = (first_key + strip).saturating_sub(first);
                if seen >= len {
                    break;
                }
                let (m, k) = (STRIP.min(block - strip), F::stored(len - seen));
                let (stride, skipped) = (F::stored(QUERIES), F::stored(seen));
                let (from, to) = (strip * stride + skipped, (first_key + strip) * width);
                let left = Left { data: &s.p_rows[from..], stride, m, k };
                let right = (&s.g_rows[skipped * width..], width);
                self.format.rows::<R, V>(left, right, (&mut s.dv[to..], width), width, true);
                let left = Left { data: &s.ds_rows[from..], stride, m, k };
                let right = (&s.q_rows[skipped * width..], width);
                self.format.rows::<R, V>(left, right, (&mut s.dk[to..], width), width, true);
            }
        }
    }
}

impl<F: Format, const R: usize, const V: usize> Kernel for Group<'_, '_, F, R, V> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let (size, tokens) = (self.heads.size, self.dk.len());
        let scale = score_scale(self.heads);
        let scratch = std::mem::take(&mut self.scratch);
        let mut s = Scratch::new::<F>(scratch, size, tokens);
        s.dk.fill(0.0);
        s.dv.fill(0.0);
        // Columns beyond the head's size.
        s.q_rows.fill(0.0);
        s.g_rows.fill(0.0);
        self.store(&mut s, tokens);
        let dq = std::mem::take(&mut self.dq);
        let first_head = self.key_value_head * dq.len();
        for (head, dq) in (first_head..).zip(dq) {
            for (tile, dq) in dq.chunks_mut(QUERIES).enumerate() {
                self.tile(&mut s, head, tile * QUERIES, dq.len());
                transpose((s.dq, QUERIES), (size, dq.len()), (&mut *s.lines, size));
                for (row, result) in dq.iter_mut().zip(s.lines.chunks_exact(size)) {
                    for (x, &result) in row.iter_mut().zip(result) {
                        *x = result * scale;
                    }
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
    let AttentionBackward { q, k, v, out, lse, dout, segments, heads, operands, dq, dk, dv } = op;
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
            let work = BackwardWork { isa, x, heads, key_value_head, scratch, dq, dk, dv };
            match (operands, isa.bf16_pairs()) {
                (Operands::Bf16, Some(pairs)) => work.group(Pairs(pairs)),
                (Operands::Bf16, None) => work.group(Floats::<true>),
                (Operands::F32, _) => work.group(Floats::<false>),
            }
        });
    });
    Ok(())
}

/// A [`Group`] whose format and tile are not chosen yet.
struct BackwardWork<'a, 'r> {
    isa: Isa,
    x: Inputs<'a>,
    heads: Heads,
    key_value_head: usize,
    scratch: &'a mut [f32],
    dq: &'a mut [Vec<&'r mut [f32]>],
    dk: &'a mut [&'r mut [f32]],
    dv: &'a mut [&'r mut [f32]],
}

impl BackwardWork<'_, '_> {
    fn group<F: Format>(self, format: F) {
        let Self { isa, x, heads, key_value_head, scratch, dq, dk, dv } = self;
        if isa.wide() {
            let group = Group { format, x, heads, key_value_head, scratch, dq, dk, dv };
            isa.run::<Group<'_, '_, F, 8, 2>>(group);
        } else {
            let group = Group { format, x, heads, key_value_head, scratch, dq, dk, dv };
            isa.run::<Group<'_, '_, F, 4, 1>>(group);
        }
    }
}
