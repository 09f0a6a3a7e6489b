//! The forward pass: online softmax over blocks of keys.

use super::format::{Floats, Format, Pairs};
use super::product::Left;
use super::{
    CHUNK, KEYS, QUERIES, group, head_rows, score_scale, store_columns, transpose, visible,
};
use crate::Error;
use crate::cpu::exp::exp;
use crate::cpu::lanes::with_scratch;
use crate::ops::{AttentionForward, Heads, Operands};
use qft_tensor::numeric::LANES;
use qft_tensor::{Cpu, Isa, Kernel};
use rayon::prelude::*;

/// Tiles of queries that meet a block of keys while it is stored.
const TILES: usize = 4;

/// Some tiles of queries of one head.
struct Tiles<'a, 'r, F, const R: usize, const V: usize> {
    format: F,
    /// Queries from the first tile's first, `q_stride` apart.
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

/// Floats of scratch, the most that a format needs: lines, a block of keys and values, scores, their weights, and for
/// each tile queries, result, and three rows of statistics.
fn scratch_len(size: usize) -> usize {
    let stored = size.next_multiple_of(2);
    let per_tile = (stored + size + 3) * QUERIES;
    stored * QUERIES + KEYS * (stored + size) + KEYS * (QUERIES + CHUNK) + TILES * per_tile
}

/// What is known of a tile of queries.
struct Tile<'a> {
    /// Scaled queries, `[stored D, QUERIES]`.
    queries: &'a mut [f32],
    /// Sum of weighted values, `[D, QUERIES]`.
    result: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
    shrink: &'a mut [f32],
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

/// A block of keys in the format of the products.
struct KeyBlock<'a> {
    first: usize,
    len: usize,
    /// `[KEYS, stored D]`.
    keys: &'a [f32],
    /// `[stored KEYS, D]`.
    values: &'a [f32],
    /// `[KEYS, QUERIES]`.
    scores: &'a mut [f32],
    /// Softened scores, `[stored KEYS, CHUNK]`.
    weights: &'a mut [f32],
}

/// One tile of queries, from `first_query` on, against a block of keys.
#[inline(always)]
fn multiply<F: Format, const R: usize, const V: usize>(
    format: F,
    block: &mut KeyBlock<'_>,
    tile: &mut Tile<'_>,
    (first_query, queries): (usize, usize),
    size: usize,
) {
    for offset in (0..queries).step_by(CHUNK) {
        let first_query = first_query + offset;
        let keys = visible(block.first, block.len, first_query, CHUNK);
        if keys == 0 {
            continue;
        }
        let stored = F::stored(size);
        let left = Left { data: block.keys, stride: stored, m: keys, k: stored };
        let right = (&tile.queries[offset..], QUERIES);
        let scores = &mut block.scores[offset..];
        format.rows::<R, V>(left, right, (&mut *scores, QUERIES), CHUNK, false);
        mask(block.scores, block.first, keys, offset, first_query);
        let lanes = offset..offset + CHUNK;
        let mut stats = Stats {
            max: &mut tile.max[lanes.clone()],
            sum: &mut tile.sum[lanes.clone()],
            shrink: &mut tile.shrink[lanes],
        };
        soften(block.scores, keys, offset, &mut stats);
        if block.first > 0 && stats.shrink.iter().any(|&s| s != 1.0) {
            for row in tile.result.chunks_exact_mut(QUERIES) {
                for (x, &shrink) in row[offset..][..CHUNK].iter_mut().zip(&*stats.shrink) {
                    *x *= shrink;
                }
            }
        }
        let scores = (&block.scores[offset..], QUERIES);
        format.store_across(scores, (keys, CHUNK), 1.0, (&mut *block.weights, CHUNK));
        let left = Left { data: block.values, stride: size, m: size, k: F::stored(keys) };
        let right = (&*block.weights, CHUNK);
        format.columns::<R, V>(left, right, (&mut tile.result[offset..], QUERIES), CHUNK);
    }
}

impl<F: Format, const R: usize, const V: usize> Kernel for Tiles<'_, '_, F, R, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { format, q, q_stride, k, v, kv_stride, first, size, scale, scratch, out, lse } =
            self;
        let stored = F::stored(size);
        let (lines, scratch) = scratch.split_at_mut(size.next_multiple_of(2) * QUERIES);
        let (keys, scratch) = scratch.split_at_mut(KEYS * stored);
        let (values, scratch) = scratch.split_at_mut(F::stored(KEYS) * size);
        let (scores, scratch) = scratch.split_at_mut(KEYS * QUERIES);
        let (weights, scratch) = scratch.split_at_mut(F::stored(KEYS) * CHUNK);
        let mut tiles = [const { None }; TILES];
        let count = out.len().div_ceil(QUERIES);
        for (index, (room, tile)) in scratch
            .chunks_mut((stored + size + 3) * QUERIES)
            .zip(&mut tiles)
            .take(count)
            .enumerate()
        {
            let (queries, room) = room.split_at_mut(stored * QUERIES);
            let (result, room) = room.split_at_mut(size * QUERIES);
            let (max, room) = room.split_at_mut(QUERIES);
            let (sum, shrink) = room.split_at_mut(QUERIES);
            let x = (&q[index * QUERIES * q_stride..], q_stride);
            let rows = QUERIES.min(out.len() - index * QUERIES);
            store_columns(format, x, (rows, size), scale, lines, queries);
            result.fill(0.0);
            max.fill(f32::NEG_INFINITY);
            sum.fill(0.0);
            *tile = Some(Tile { queries, result, max, sum, shrink });
        }
        let end = first + out.len();
        for first_key in (0..end).step_by(KEYS) {
            let len = KEYS.min(end - first_key);
            let k = (&k[first_key * kv_stride..], kv_stride);
            format.store_along(k, (len, size), 1.0, (&mut *keys, stored));
            let v = (&v[first_key * kv_stride..], kv_stride);
            format.store_across(v, (len, size), 1.0, (&mut *values, size));
            let mut block = KeyBlock { first: first_key, len, keys, values, scores, weights };
            for (index, tile) in tiles.iter_mut().flatten().enumerate() {
                let first_query = first + index * QUERIES;
                let queries = (first_query, QUERIES.min(end - first_query));
                multiply::<F, R, V>(format, &mut block, tile, queries, size);
            }
        }
        for (tile, (out, lse)) in
            tiles.iter_mut().flatten().zip(out.chunks_mut(QUERIES).zip(lse.chunks_mut(QUERIES)))
        {
            transpose((tile.result, QUERIES), (size, out.len()), (&mut *lines, size));
            for (i, (row, lse)) in out.iter_mut().zip(lse).enumerate() {
                let inverse = 1.0 / tile.sum[i];
                for (x, &result) in row.iter_mut().zip(&lines[i * size..][..size]) {
                    *x = result * inverse;
                }
                *lse = tile.max[i] + tile.sum[i].ln();
            }
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
    let AttentionForward { q, k, v, segments, heads, operands, lse, out } = op;
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
        for (tile, out) in list.chunks_mut(TILES * QUERIES).enumerate() {
            let (lse, behind) = std::mem::take(&mut rest).split_at_mut(out.len());
            rest = behind;
            tasks.push(Task { token: start + tile * TILES * QUERIES, start, head, out, lse });
        }
    }
    let isa = cpu.isa();
    cpu.for_each(tasks.into_par_iter().with_max_len(1), |task| {
        with_scratch(scratch_len(heads.size), |scratch| {
            let work = ForwardWork { isa, x: (q, k, v), heads, group, scratch };
            match (operands, isa.bf16_pairs()) {
                (Operands::Bf16, Some(pairs)) => work.task(Pairs(pairs), task),
                (Operands::Bf16, None) => work.task(Floats::<true>, task),
                (Operands::F32, _) => work.task(Floats::<false>, task),
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

/// What the tasks of a pass share, and the scratch of one.
struct ForwardWork<'a> {
    isa: Isa,
    x: (&'a [f32], &'a [f32], &'a [f32]),
    heads: Heads,
    group: usize,
    scratch: &'a mut [f32],
}

impl ForwardWork<'_> {
    fn task<F: Format>(self, format: F, task: Task<'_, '_>) {
        if self.isa.wide() {
            self.tiles::<F, 8, 2>(format, task);
        } else {
            self.tiles::<F, 4, 1>(format, task);
        }
    }

    fn tiles<F: Format, const R: usize, const V: usize>(self, format: F, task: Task<'_, '_>) {
        let Self { isa, x: (q, k, v), heads, group, scratch } = self;
        let Heads { query, key_value, size } = heads;
        let Task { token, start, head, out, lse } = task;
        let first = (start * key_value + head / group) * size;
        isa.run(Tiles::<'_, '_, F, R, V> {
            format,
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
}
