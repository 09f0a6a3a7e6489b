//! Attention on the CPU: blocks of queries along the lanes, blocks of keys along the rows.
//!
//! Scores are kept transposed, `[keys, queries]`, so that softmax works lane by lane: one element of a key meets a vector
//! of queries. Operands of products are stored in a [`format`] first: f32, or rounded to bf16.

mod backward;
mod decode;
mod format;
mod forward;
mod product;

pub(super) use backward::backward;
pub(super) use decode::decode;
pub(super) use forward::forward;

use crate::Error;
use crate::ops::{Heads, Segments};
use format::Format;

/// Queries in a tile.
const QUERIES: usize = 64;
/// Keys in a block.
const KEYS: usize = 64;
/// Queries that share one decision about what is masked: lanes of a product tile.
const CHUNK: usize = 32;

/// The keys of a block, of `keys` beginning at `first_key`, that some query of a chunk reads.
#[inline(always)]
fn visible(first_key: usize, keys: usize, first_query: usize, queries: usize) -> usize {
    (first_query + queries).saturating_sub(first_key).min(keys)
}

/// Rows of one head in one segment, as slices of `[T, heads * D]`: `[segments * heads][tokens][D]`.
fn head_rows<'a>(
    x: &'a mut [f32],
    segments: &Segments,
    heads: usize,
    size: usize,
) -> Vec<Vec<&'a mut [f32]>> {
    let mut chunks = x.chunks_exact_mut(size);
    let mut lists = Vec::with_capacity((segments.borders().len() - 1) * heads);
    for border in segments.borders().windows(2) {
        let tokens = border[1] - border[0];
        let first = lists.len();
        lists.extend((0..heads).map(|_| Vec::with_capacity(tokens)));
        for row in 0..tokens * heads {
            lists[first + row % heads].extend(chunks.next());
        }
    }
    lists
}

/// The factor of the scores.
fn score_scale(heads: Heads) -> f32 {
    1.0 / (heads.size as f32).sqrt()
}

/// Checks that query heads divide evenly among key/value heads; the queries per key/value head.
fn group(op: &'static str, heads: Heads) -> Result<usize, Error> {
    let Heads { query, key_value, .. } = heads;
    if key_value == 0 || !query.is_multiple_of(key_value) {
        return Err(Error::shape(
            op,
            "query heads in multiples of key/value heads",
            format_args!("{query} and {key_value}"),
        ));
    }
    Ok(query / key_value)
}

/// Stores `rows` queries of `size`, `stride` apart, times `factor` as columns of `[stored size, QUERIES]`; the other
/// columns are zero. `lines` holds as many floats as `out`.
#[inline(always)]
fn store_columns<F: Format>(
    format: F,
    (x, stride): (&[f32], usize),
    (rows, size): (usize, usize),
    factor: f32,
    lines: &mut [f32],
    out: &mut [f32],
) {
    let stored = F::stored(size);
    format.store_along((x, stride), (rows, size), factor, (&mut *lines, stored));
    if rows < QUERIES {
        out.fill(0.0);
    }
    transpose((lines, stored), (rows, stored), (out, QUERIES));
}

/// `out[c, r] = x[r, c]`, in squares of 4; both matrices with their strides.
#[inline(always)]
fn transpose(
    (x, stride): (&[f32], usize),
    (rows, cols): (usize, usize),
    (out, out_stride): (&mut [f32], usize),
) {
    const SIDE: usize = 4;
    let (whole_rows, whole_cols) = (rows / SIDE * SIDE, cols / SIDE * SIDE);
    for r in (0..whole_rows).step_by(SIDE) {
        for c in (0..whole_cols).step_by(SIDE) {
            let mut square = [[0.0f32; SIDE]; SIDE];
            for (i, line) in square.iter_mut().enumerate() {
                line.copy_from_slice(&x[(r + i) * stride + c..][..SIDE]);
            }
            for j in 0..SIDE {
                let line: [f32; SIDE] = std::array::from_fn(|i| square[i][j]);
                out[(c + j) * out_stride + r..][..SIDE].copy_from_slice(&line);
            }
        }
    }
    for r in 0..rows {
        let first = if r < whole_rows { whole_cols } else { 0 };
        for c in first..cols {
            out[c * out_stride + r] = x[r * stride + c];
        }
    }
}
