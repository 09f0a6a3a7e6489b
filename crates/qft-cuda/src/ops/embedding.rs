//! Embedding rows on the GPU: `kernels/embedding.cu`.

use super::dims;
use crate::{Arg, Cuda, Launch};
use qft_autograd::ops::{EmbedBackward, EmbedForward, GatherRows, ScatterRows};
use qft_autograd::{Error, TableRef};
use qft_quant::{HybridMatrix, Residual};
use qft_tensor::Buffer;

/// Threads of a block, as in the kernels.
const THREADS: u32 = 256;
/// Rows and columns of the table that a block of the gradient owns, as in the kernel.
const GRADIENT_ROWS: u32 = 8;
const GRADIENT_COLS: u32 = 4 * THREADS;

/// Checks that every index is below `len`, without a word from the device if what the host sent was in range.
fn check_indices(
    cuda: &Cuda,
    op: &'static str,
    index: &Buffer<u32>,
    len: usize,
) -> Result<(), Error> {
    if cuda.largest(index).is_some_and(|largest| (largest as usize) < len) {
        return Ok(());
    }
    let index = index.to_vec(cuda)?;
    match index.iter().position(|&id| id as usize >= len) {
        None => Ok(()),
        Some(position) => Err(Error::IndexOutOfRange { op, id: index[position], position, len }),
    }
}

fn gather(
    cuda: &Cuda,
    op: &'static str,
    src: &Buffer<f32>,
    index: &Buffer<u32>,
    channels: usize,
    out: &mut Buffer<f32>,
) -> Result<(), Error> {
    let launch = Launch::blocks(dims::index(op, index.len())?, THREADS);
    let (src, index, out) = (cuda.read(op, src)?, cuda.read(op, index)?, cuda.write(op, out)?);
    let args = [src, index, out, Arg::U32(dims::index(op, channels)?)];
    Ok(cuda.launch(op, "gather_rows_f32", launch, &args)?)
}

fn decode(
    cuda: &Cuda,
    op: &'static str,
    ids: &Buffer<u32>,
    table: &HybridMatrix,
    out: &mut Buffer<f32>,
) -> Result<(), Error> {
    let bits = match table.format().residual {
        Residual::None => 0,
        Residual::Bits4 => 4,
        Residual::Bits8 => 8,
    };
    let residual = table.residual.as_ref().map(|plane| cuda.read(op, plane)).transpose()?;
    let protected = match &table.protected {
        None => [Arg::NULL; 4],
        Some(o) => [
            cuda.read(op, &o.values)?,
            cuda.read(op, &o.cols)?,
            cuda.read(op, &o.counts)?,
            cuda.read(op, &o.row_start)?,
        ],
    };
    let [values, columns, counts, row_start] = protected;
    let args = [
        cuda.read(op, ids)?,
        cuda.read(op, &table.q)?,
        cuda.read(op, &table.scale)?,
        residual.unwrap_or(Arg::NULL),
        values,
        columns,
        counts,
        row_start,
        cuda.write(op, out)?,
        Arg::U32(dims::index(op, table.cols())?),
        Arg::U32(bits),
    ];
    let launch = Launch::blocks(dims::index(op, ids.len())?, THREADS);
    Ok(cuda.launch(op, "embed_hybrid_f32", launch, &args)?)
}

pub(super) fn forward(cuda: &Cuda, op: EmbedForward<'_>) -> Result<(), Error> {
    const OP: &str = "embed_forward";
    op.check()?;
    let EmbedForward { ids, table, vocab, channels, out } = op;
    check_indices(cuda, OP, ids, vocab)?;
    match table {
        TableRef::Float(table) => gather(cuda, OP, table, ids, channels, out),
        TableRef::Hybrid(table) => decode(cuda, OP, ids, table, out),
    }
}

pub(super) fn backward(cuda: &Cuda, op: EmbedBackward<'_>) -> Result<(), Error> {
    const OP: &str = "embed_backward";
    op.check()?;
    let EmbedBackward { ids, dy, rows, mut grad } = op;
    let (count, cols) = (dims::index(OP, grad.rows())?, dims::index(OP, grad.cols())?);
    let launch = Launch {
        grid: [count.div_ceil(GRADIENT_ROWS), cols.div_ceil(GRADIENT_COLS), 1],
        ..Launch::blocks(1, THREADS)
    };
    let stride = Arg::size(grad.stride());
    let args = [
        cuda.read(OP, ids)?,
        cuda.read(OP, dy)?,
        cuda.write_mat(OP, &mut grad)?,
        Arg::U32(dims::index(OP, ids.len())?),
        Arg::U32(dims::index(OP, rows.start)?),
        Arg::U32(count),
        Arg::U32(cols),
        stride,
    ];
    Ok(cuda.launch(OP, "embed_backward_f32", launch, &args)?)
}

pub(super) fn gather_rows(cuda: &Cuda, op: GatherRows<'_>) -> Result<(), Error> {
    const OP: &str = "gather_rows";
    op.check()?;
    let GatherRows { src, index, channels, out } = op;
    check_indices(cuda, OP, index, src.len() / channels.max(1))?;
    gather(cuda, OP, src, index, channels, out)
}

pub(super) fn scatter_rows(cuda: &Cuda, op: ScatterRows<'_>) -> Result<(), Error> {
    const OP: &str = "scatter_rows";
    op.check()?;
    let ScatterRows { src, index, channels, dst } = op;
    check_indices(cuda, OP, index, dst.len() / channels.max(1))?;
    dst.fill_zero(cuda)?;
    let launch = Launch::blocks(dims::index(OP, index.len())?, THREADS);
    let (src, index, dst) = (cuda.read(OP, src)?, cuda.read(OP, index)?, cuda.write(OP, dst)?);
    let args = [src, index, dst, Arg::U32(dims::index(OP, channels)?)];
    Ok(cuda.launch(OP, "scatter_rows_f32", launch, &args)?)
}
