//! Embedding rows on the CPU: lookup and its gradient, gather and scatter.

use crate::Error;
use crate::ops::{EmbedBackward, EmbedForward, GatherRows, ScatterRows, TableRef};
use qft_quant::{DecodeRows, HybridOps, Precision};
use qft_tensor::Cpu;
use rayon::prelude::*;

/// Rows per task.
const ROWS: usize = 16;

/// Checks that every index is below `len`.
fn check_indices(op: &'static str, index: &[u32], len: usize) -> Result<(), Error> {
    match index.iter().position(|&id| id as usize >= len) {
        None => Ok(()),
        Some(position) => Err(Error::IndexOutOfRange { op, id: index[position], position, len }),
    }
}

/// `out[i] = src[index[i]]`; indices are in range.
fn gather(cpu: &Cpu, src: &[f32], index: &[u32], cols: usize, out: &mut [f32]) {
    let tasks = out.par_chunks_mut(ROWS * cols).zip(index.par_chunks(ROWS));
    cpu.for_each(tasks, |(out, index)| {
        for (out, &i) in out.chunks_exact_mut(cols).zip(index) {
            out.copy_from_slice(&src[i as usize * cols..][..cols]);
        }
    });
}

pub(super) fn forward(cpu: &Cpu, op: EmbedForward<'_>) -> Result<(), Error> {
    op.check()?;
    let EmbedForward { ids, table, vocab, channels, out } = op;
    let ids = ids.host()?;
    check_indices("embed_forward", ids, vocab)?;
    if ids.is_empty() || channels == 0 {
        return Ok(());
    }
    match table {
        TableRef::Float(table) => gather(cpu, table.host()?, ids, channels, out.host_mut()?),
        // On a worker, so that the small operations of the loop need not be handed to one each.
        TableRef::Hybrid(weight) => cpu.install(|| {
            ids.iter().enumerate().try_for_each(|(t, &id)| {
                let rows = id as usize..id as usize + 1;
                let out = out.mat_mut(ids.len(), channels)?.row_range(t..t + 1)?;
                cpu.decode_rows(DecodeRows { weight, rows, precision: Precision::Full, out })
                    .map_err(Error::from)
            })
        })?,
    }
    Ok(())
}

pub(super) fn backward(cpu: &Cpu, op: EmbedBackward<'_>) -> Result<(), Error> {
    op.check()?;
    let EmbedBackward { ids, dy, rows, mut grad } = op;
    let (cols, stride, dy) = (grad.cols(), grad.stride(), dy.host()?);
    // Pairs of a row within the block and a token, by row, then in order of tokens.
    let mut uses: Vec<(u32, u32)> = (ids.host()?.iter().enumerate())
        .filter(|(_, id)| rows.contains(&(**id as usize)))
        .map(|(t, &id)| (id - rows.start as u32, t as u32))
        .collect();
    if uses.is_empty() || cols == 0 {
        return Ok(());
    }
    uses.sort_unstable();
    cpu.for_each(grad.host_mut()?.par_chunks_mut(ROWS * stride).enumerate(), |(task, grad)| {
        let first = (task * ROWS) as u32;
        let start = uses.partition_point(|&(row, _)| row < first);
        for &(row, t) in uses[start..].iter().take_while(|&&(row, _)| row < first + ROWS as u32) {
            let grad = &mut grad[(row - first) as usize * stride..][..cols];
            for (grad, dy) in grad.iter_mut().zip(&dy[t as usize * cols..][..cols]) {
                *grad += dy;
            }
        }
    });
    Ok(())
}

pub(super) fn gather_rows(cpu: &Cpu, op: GatherRows<'_>) -> Result<(), Error> {
    op.check()?;
    let GatherRows { src, index, channels, out } = op;
    let (src, index) = (src.host()?, index.host()?);
    check_indices("gather_rows", index, src.len() / channels.max(1))?;
    if channels > 0 {
        gather(cpu, src, index, channels, out.host_mut()?);
    }
    Ok(())
}

pub(super) fn scatter_rows(cpu: &Cpu, op: ScatterRows<'_>) -> Result<(), Error> {
    /// Marks rows that receive nothing.
    const NONE: u32 = u32::MAX;
    op.check()?;
    let ScatterRows { src, index, channels, dst } = op;
    let (src, index, dst) = (src.host()?, index.host()?, dst.host_mut()?);
    let rows = dst.len() / channels.max(1);
    check_indices("scatter_rows", index, rows)?;
    if channels == 0 {
        return Ok(());
    }
    let mut source = vec![NONE; rows];
    for (i, &row) in index.iter().enumerate() {
        source[row as usize] = i as u32;
    }
    cpu.for_each(dst.par_chunks_mut(channels).zip(&source), |(dst, &source)| match source {
        NONE => dst.fill(0.0),
        i => dst.copy_from_slice(&src[i as usize * channels..][..channels]),
    });
    Ok(())
}
