//! The forward pass: online softmax over blocks of keys.

use super::product::{Left, columns, rows};
use super::{
    CHUNK, KEYS, QUERIES, group, head_rows, pack_transposed, score_scale, transpose, visible,
};
use crate::Error;
use crate::cpu::exp::exp;
use crate::cpu::lanes::{LANES, with_scratch};
use crate::ops::{AttentionForward, Heads};
use qft_tensor::{Cpu, Isa, Kernel};
use rayon::prelude::*;

/// A tile of queries of one head.
struct Tile<'a, 'r, const R: usize, const V: usize> {
    /// Queries from the tile's first, `q_stride` apart.
    q: &'a [f32],
    q_stride: usize,
    /// Keys of the segment, `kv_stride` apart.
    k: &'a [f32],
    /// Values of the segment.
    v: &'a [f32],
    kv_stride: usize,
    /// First query within the segment.
    first: usize,
    /// Head size D.
    size: usize,
    scale: f32,
    scratch: &'a mut [f32],
    /// Rows of the result.
    out: &'a mut [&'r mut [f32]],
    lse: &'a mut [f32],
}

/// Floats of scratch: queries, scores, result, and three rows of statistics.
fn scratch_len(size: usize) -> usize {
    (2 * size + KEYS + 3) * QUERIES
}

/// Running maximum and sum of a chunk of queries.
struct Stats<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// Factor by which the results so far shrink.
    shrink: &'a mut [f32],
}

/// Turns a block of scores into weights relative to the running maximum; scores of masked keys are negative infinity.
#[inline(always)]
fn soften(scores: &mut [f32], keys: usize, offset: usize, stats: &mut Stats<'_>) {
    for col in (0..CHUNK).step_by(LANES) {
        let at = |key: usize| key * QUERIES + offset + col;
        let mut max = [0.0f32; LANES];
        let old: [f32; LANES] = std::array::from_fn(|l| stats.max[col + l]);
        max.copy_from_slice(&old);
        for key in 0..keys {
            let row = &scores[at(key)..][..LANES];
            for l in 0..LANES {
                max[l] = if row[l] > max[l] { row[l] } else { max[l] };
            }
        }
        let mut sum = [0.0f32; LANES];
        for key in 0..keys {
            let row = &mut scores[at(key)..][..LANES];
            for l in 0..LANES {
                row[l] = exp(row[l] - max[l]);
                sum[l] += row[l];
            }
        }
        for l in 0..LANES {
            let shrink = exp(old[l] - max[l]);
            stats.shrink[col + l] = shrink;
            stats.sum[col + l] = stats.sum[col + l].mul_add(shrink, sum[l]);
            stats.max[col + l] = max[l];
        }
    }
}

/// Hides from each query of a chunk the keys behind it.
#[inline(always)]
fn mask(scores: &mut [f32], first_key: usize, keys: usize, offset: usize, first_query: usize) {
    for key in first_query.saturating_sub(first_key)..keys {
        let hidden = (first_key + key).saturating_sub(first_query).min(CHUNK);
        scores[key * QUERIES + offset..][..hidden].fill(f32::NEG_INFINITY);
    }
}

impl<const R: usize, const V: usize> Kernel for Tile<'_, '_, R, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { q, q_stride, k, v, kv_stride, first, size, scale, scratch, out, lse } = self;
        let (packed, scratch) = scratch.split_at_mut(size * QUERIES);
        let (result, scratch) = scratch.split_at_mut(size * QUERIES);
        let (scores, scratch) = scratch.split_at_mut(KEYS * QUERIES);
        let (max, scratch) = scratch.split_at_mut(QUERIES);
        let (sum, shrink) = scratch.split_at_mut(QUERIES);
        pack_transposed(q, q_stride, out.len(), size, scale, packed);
        result.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let end = first + out.len();
        for first_key in (0..end).step_by(KEYS) {
            let block = KEYS.min(end - first_key);
            for offset in (0..out.len()).step_by(CHUNK) {
                let first_query = first + offset;
                let keys = visible(first_key, block, first_query, CHUNK);
                if keys == 0 {
                    continue;
                }
                let left =
                    Left { data: &k[first_key * kv_stride..], stride: kv_stride, m: keys, k: size };
                let right = (&packed[offset..], QUERIES);
                rows::<R, V>(left, right, (&mut scores[offset..], QUERIES), CHUNK, false);
                mask(scores, first_key, keys, offset, first_query);
                let lanes = offset..offset + CHUNK;
                let mut stats = Stats {
                    max: &mut max[lanes.clone()],
                    sum: &mut sum[lanes.clone()],
                    shrink: &mut shrink[lanes],
                };
                soften(scores, keys, offset, &mut stats);
                if first_key > 0 && stats.shrink.iter().any(|&s| s != 1.0) {
                    for row in result.chunks_exact_mut(QUERIES) {
                        for (x, &shrink) in row[offset..][..CHUNK].iter_mut().zip(&*stats.shrink) {
                            *x *= shrink;
                        }
                    }
                }
                let left =
                    Left { data: &v[first_key * kv_stride..], stride: kv_stride, m: size, k: keys };
                let right = (&scores[offset..], QUERIES);
                columns::<R, V>(left, right, (&mut result[offset..], QUERIES), CHUNK);
            }
        }
        // The queries are not needed any more: their place takes the result, row by row.
        transpose((result, QUERIES), (size, out.len()), 1.0, (&mut *packed, size));
        for (i, (row, lse)) in out.iter_mut().zip(lse).enumerate() {
            let inverse = 1.0 / sum[i];
            for (x, &result) in row.iter_mut().zip(&packed[i * size..][..size]) {
                *x = result * inverse;
            }
            *lse = max[i] + sum[i].ln();
        }
    }
}

struct Task<'a, 'r> {
    /// Token of the first query in the batch.
    token: usize,
    /// Token of the first key in the batch.
    start: usize,
    head: usize,
    out: &'a mut [&'r mut [f32]],
    lse: &'a mut [f32],
}

pub(crate) fn forward(cpu: &Cpu, op: AttentionForward<'_>) -> Result<(), Error> {
    op.check()?;
    let AttentionForward { q, k, v, segments, heads, lse, out } = op;
    let group = group("attention_forward", heads)?;
    let (q, k, v) = (q.host()?, k.host()?, v.host()?);
    let (lse, out) = (lse.host_mut()?, out.host_mut()?);
    if heads.size == 0 {
        return Ok(());
    }
    let mut lists = head_rows(out, segments, heads.query, heads.size);
    // By segment and head, as the tasks are; put into the order of tokens below.
    let mut lse_rows = vec![0.0; lse.len()];
    let mut tasks = Vec::new();
    let mut rest = lse_rows.as_mut_slice();
    for (index, list) in lists.iter_mut().enumerate() {
        let (start, head) = (segments.borders()[index / heads.query], index % heads.query);
        for (tile, out) in list.chunks_mut(QUERIES).enumerate() {
            let (lse, behind) = std::mem::take(&mut rest).split_at_mut(out.len());
            rest = behind;
            tasks.push(Task { token: start + tile * QUERIES, start, head, out, lse });
        }
    }
    let isa = cpu.isa();
    let wide = isa.wide();
    cpu.for_each(tasks.into_par_iter().with_max_len(1), |task| {
        with_scratch(scratch_len(heads.size), |scratch| {
            if wide {
                run::<8, 2>(isa, task, (q, k, v), heads, group, scratch);
            } else {
                run::<4, 1>(isa, task, (q, k, v), heads, group, scratch);
            }
        });
    });
    let mut sources = lse_rows.iter();
    for border in segments.borders().windows(2) {
        for head in 0..heads.query {
            for (t, &value) in (border[0]..border[1]).zip(&mut sources) {
                lse[t * heads.query + head] = value;
            }
        }
    }
    Ok(())
}

fn run<const R: usize, const V: usize>(
    isa: Isa,
    task: Task<'_, '_>,
    (q, k, v): (&[f32], &[f32], &[f32]),
    heads: Heads,
    group: usize,
    scratch: &mut [f32],
) {
    let Heads { query, key_value, size } = heads;
    let Task { token, start, head, out, lse } = task;
    let first = (start * key_value + head / group) * size;
    isa.run(Tile::<'_, '_, R, V> {
        q: &q[(token * query + head) * size..],
        q_stride: query * size,
        k: &k[first..],
        v: &v[first..],
        kv_stride: key_value * size,
        first: token - start,
        size,
        scale: score_scale(heads),
        scratch,
        out,
        lse,
    });
}
