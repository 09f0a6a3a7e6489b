//! Attention on the GPU: `kernels/attention.cu`, `kernels/attention_backward.cu`, and `kernels/attention_f32.cu` for head
//! sizes without a tensor-core kernel and for decoding.

use super::dims;
use crate::scratch::SCRATCH_BYTES;
use crate::{Arg, Cuda, Launch};
use qft_autograd::ops::{AttentionBackward, AttentionDecode, AttentionForward, Operands};
use qft_autograd::{Error, Heads, Segments};

/// Queries or keys of a tile, as in the kernels.
const TILE: usize = 64;
/// Threads of a block of the tensor-core kernels.
const BF16_THREADS: u32 = 128;
/// Warps of a block of the f32 kernels, where shared memory allows.
const F32_WARPS: usize = 8;
/// Threads of a warp.
const WARP: usize = 32;
/// Bytes of a float.
const FLOAT: usize = size_of::<f32>();
/// Words of a tile's entry in the table.
const ENTRY: usize = 3;

/// Tensor-core kernels of one head size.
struct Bf16 {
    forward: &'static str,
    queries: &'static str,
    keys: &'static str,
}

macro_rules! bf16 {
    ($size:literal) => {
        Some(Bf16 {
            forward: concat!("attention_forward_bf16_d", $size),
            queries: concat!("attention_backward_queries_bf16_d", $size),
            keys: concat!("attention_backward_keys_bf16_d", $size),
        })
    };
}

fn bf16_kernels(operands: Operands, size: usize) -> Option<Bf16> {
    if operands == Operands::F32 {
        return None;
    }
    match size {
        32 => bf16!(32),
        64 => bf16!(64),
        80 => bf16!(80),
        96 => bf16!(96),
        128 => bf16!(128),
        _ => None,
    }
}

/// Shared memory of `tiles` tiles of bf16, whose rows are 8 elements apart.
fn bf16_shared(op: &'static str, tiles: usize, size: usize) -> Result<u32, Error> {
    Ok(dims::index(op, tiles * TILE * (size + 8) * 2)?)
}

/// A block of the f32 kernels: as many warps as shared memory holds `per_warp` floats for, beside `common`.
fn f32_block(
    cuda: &Cuda,
    op: &'static str,
    common: usize,
    per_warp: usize,
) -> Result<Launch, Error> {
    let floats = cuda.driver().properties().max_shared_bytes as usize / FLOAT;
    let warps = (floats.saturating_sub(common) / per_warp).min(F32_WARPS);
    if warps == 0 {
        let need = format_args!("heads that fit {floats} floats of shared memory").to_string();
        return Err(qft_tensor::Error::shape(op, need, common + per_warp).into());
    }
    let shared = dims::index(op, (common + warps * per_warp) * FLOAT)?;
    Ok(Launch::blocks(1, (warps * WARP) as u32).with_shared(shared))
}

/// Which tiles have the most work.
#[derive(Clone, Copy)]
enum Longest {
    /// Queries: those far from the start of their segment.
    Queries,
    /// Keys: those far from its end.
    Keys,
}

/// The tiles of all segments, longest first so that the last blocks to run are short: u32 `[tiles, 3]`, first token,
/// start and end of the segment.
fn tile_table(segments: &Segments, longest: Longest) -> Vec<[u32; ENTRY]> {
    let mut tiles: Vec<[u32; ENTRY]> = (segments.borders().windows(2))
        .flat_map(|border| {
            let (start, end) = (border[0], border[1]);
            (start..end).step_by(TILE).map(move |first| [first, start, end].map(|at| at as u32))
        })
        .collect();
    tiles.sort_by_key(|&[first, start, end]| {
        std::cmp::Reverse(match longest {
            Longest::Queries => first - start,
            Longest::Keys => end - first,
        })
    });
    tiles
}

/// The number of query heads to a key/value head.
fn group(op: &'static str, heads: Heads) -> Result<u32, Error> {
    let Heads { query, key_value, .. } = heads;
    if key_value == 0 || !query.is_multiple_of(key_value) {
        let got = format_args!("{query} and {key_value}").to_string();
        let want = "query heads in multiples of key/value heads";
        return Err(qft_tensor::Error::shape(op, want, got).into());
    }
    Ok(dims::index(op, query / key_value)?)
}

/// The factor of the scores.
fn score_scale(heads: Heads) -> Arg {
    Arg::F32(1.0 / (heads.size as f32).sqrt())
}

/// A block for each of `heads` heads of each tile.
fn per_tile(op: &'static str, launch: Launch, heads: usize, tiles: usize) -> Result<Launch, Error> {
    Ok(Launch { grid: [dims::index(op, heads)?, dims::index(op, tiles)?, 1], ..launch })
}

/// Copies tables to the device, one behind the other; `at` is the address of the first.
fn upload(cuda: &Cuda, op: &'static str, at: Arg, tables: &[[u32; ENTRY]]) -> Result<(), Error> {
    let Arg::Ptr(address) = at else { return Ok(()) };
    let bytes: Vec<u8> = tables.iter().flatten().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(cuda.driver().upload(address, &bytes).map_err(|error| error.during(op))?)
}

pub(super) fn forward(cuda: &Cuda, op: AttentionForward<'_>) -> Result<(), Error> {
    const OP: &str = "attention_forward";
    op.check()?;
    let AttentionForward { q, k, v, segments, heads, operands, lse, out } = op;
    let group = group(OP, heads)?;
    if q.is_empty() {
        return Ok(());
    }
    dims::index(OP, segments.tokens())?;
    let table = tile_table(segments, Longest::Queries);
    let scratch = cuda.scratch(OP, size_of_val(&table[..]))?;
    upload(cuda, OP, scratch.at(0), &table)?;
    let mut args = vec![
        cuda.read(OP, q)?,
        cuda.read(OP, k)?,
        cuda.read(OP, v)?,
        scratch.at(0),
        cuda.write(OP, lse)?,
        cuda.write(OP, out)?,
        Arg::U32(group),
    ];
    let (kernel, block) = match bf16_kernels(operands, heads.size) {
        Some(kernels) => {
            let shared = bf16_shared(OP, 2, heads.size)?;
            (kernels.forward, Launch::blocks(1, BF16_THREADS).with_shared(shared))
        }
        None => {
            args.extend([Arg::U32(dims::index(OP, heads.size)?), score_scale(heads)]);
            ("attention_forward_f32", f32_block(cuda, OP, 0, 2 * heads.size + WARP)?)
        }
    };
    let launch = per_tile(OP, block, heads.query, table.len())?;
    Ok(cuda.launch(OP, kernel, launch, &args)?)
}

pub(super) fn backward(cuda: &Cuda, op: AttentionBackward<'_>) -> Result<(), Error> {
    const OP: &str = "attention_backward";
    op.check()?;
    let AttentionBackward { q, k, v, out, lse, dout, segments, heads, operands, dq, dk, dv } = op;
    let group = group(OP, heads)?;
    if q.is_empty() {
        return Ok(());
    }
    let size = dims::index(OP, heads.size)?;
    // Scratch: the tiles by the work of their queries, the same by that of their keys, delta [T, H].
    let mut table = tile_table(segments, Longest::Queries);
    let tiles = table.len();
    table.extend(tile_table(segments, Longest::Keys));
    let (table_bytes, delta_rows) = (size_of_val(&table[..]), lse.len());
    let bytes = table_bytes + delta_rows * FLOAT;
    if bytes > SCRATCH_BYTES {
        let want = format!("at most {} tokens times heads at a time", SCRATCH_BYTES / FLOAT);
        return Err(qft_tensor::Error::shape(OP, want, delta_rows).into());
    }
    dims::index(OP, segments.tokens())?;
    let scratch = cuda.scratch(OP, bytes)?;
    let (by_query, by_key) = (scratch.at(0), scratch.at(table_bytes / 2));
    let delta = scratch.at(table_bytes);
    upload(cuda, OP, by_query, &table)?;
    let (out, dout) = (cuda.read(OP, out)?, cuda.read(OP, dout)?);
    let rows = Launch::blocks(
        dims::index(OP, delta_rows.div_ceil(BF16_THREADS as usize / WARP))?,
        BF16_THREADS,
    );
    let args = [out, dout, delta, Arg::size(delta_rows), Arg::U32(size)];
    cuda.launch(OP, "attention_delta_f32", rows, &args)?;

    let (q, k, v, lse) =
        (cuda.read(OP, q)?, cuda.read(OP, k)?, cuda.read(OP, v)?, cuda.read(OP, lse)?);
    let group = Arg::U32(group);
    let mut queries = vec![q, k, v, dout, lse, delta, by_query, cuda.write(OP, dq)?, group];
    let mut keys = vec![q, k, v, dout, lse, delta, by_key];
    keys.extend([cuda.write(OP, dk)?, cuda.write(OP, dv)?, group]);
    let (query_kernel, query_block, key_kernel, key_block) =
        match bf16_kernels(operands, heads.size) {
            Some(kernels) => {
                let shared = bf16_shared(OP, 4, heads.size)?;
                let block = Launch::blocks(1, BF16_THREADS).with_shared(shared);
                (kernels.queries, block, kernels.keys, block)
            }
            None => {
                let more = [Arg::U32(size), score_scale(heads)];
                queries.extend(more);
                keys.extend(more);
                (
                    "attention_backward_queries_f32",
                    f32_block(cuda, OP, 0, 3 * heads.size + WARP)?,
                    "attention_backward_keys_f32",
                    f32_block(cuda, OP, 0, 4 * heads.size + 2 * WARP)?,
                )
            }
        };
    cuda.launch(OP, query_kernel, per_tile(OP, query_block, heads.query, tiles)?, &queries)?;
    Ok(cuda.launch(OP, key_kernel, per_tile(OP, key_block, heads.key_value, tiles)?, &keys)?)
}

pub(super) fn decode(cuda: &Cuda, op: AttentionDecode<'_>) -> Result<(), Error> {
    const OP: &str = "attention_decode";
    let tokens = op.check()?;
    let AttentionDecode { q, k, v, past, heads, out } = op;
    let group = group(OP, heads)?;
    if q.is_empty() {
        return Ok(());
    }
    dims::index(OP, past + tokens)?;
    let block = f32_block(cuda, OP, heads.size, heads.size + WARP + 2)?;
    let blocks = dims::index(OP, tokens * heads.query)?;
    let launch = Launch { grid: [blocks, 1, 1], ..block };
    let args = [
        cuda.read(OP, q)?,
        cuda.read(OP, k)?,
        cuda.read(OP, v)?,
        cuda.write(OP, out)?,
        Arg::U32(dims::index(OP, past)?),
        Arg::U32(dims::index(OP, heads.query)?),
        Arg::U32(group),
        Arg::U32(dims::index(OP, heads.size)?),
        score_scale(heads),
    ];
    Ok(cuda.launch(OP, "attention_decode_f32", launch, &args)?)
}
