//! What the processes of a job exchange in a step. Alone, a process does nothing here.

use crate::{Error, LayerOps};
use bytemuck::Pod;
use qft_quant::HybridMatrix;
use qft_tensor::buffer::RawBuffer;
use qft_tensor::communicator::{owner_of, part_of};
use qft_tensor::{Buffer, Communicator, Device, DeviceKind, Element, Owner, RowShard, Transfer};
use std::ops::Range;

/// The processes, if there are several.
fn several(ops: &dyn LayerOps) -> Option<&dyn Communicator> {
    Some(ops.communicator()).filter(|processes| processes.size() > 1)
}

/// Whether memory is counted, and what it would hold is nobody's business.
fn is_planned(ops: &dyn LayerOps) -> bool {
    ops.kind() == DeviceKind::Planner
}

/// Lets `f` change the first `len` elements of a buffer in host memory.
fn on_host<T: Element + Pod>(
    device: &dyn Device,
    buffer: &mut Buffer<T>,
    len: usize,
    f: impl FnOnce(&mut [T]) -> Result<(), qft_tensor::Error>,
) -> Result<(), Error> {
    if let Ok(values) = buffer.host_mut() {
        return Ok(f(&mut values[..len])?);
    }
    let mut values = vec![T::zeroed(); len];
    buffer.download(device, 0, &mut values)?;
    f(&mut values)?;
    Ok(buffer.upload(device, 0, &values)?)
}

/// The parts of `len` elements of `size` bytes that processes have to do with, in bytes.
fn parts(processes: &dyn Communicator, len: usize, size: usize) -> Vec<Range<usize>> {
    let part = |rank| part_of(len, rank, processes.size());
    (0..processes.size()).map(|rank| part(rank).start * size..part(rank).end * size).collect()
}

/// Sets each number, none of them negative, to the largest that any process has; what is not a number is largest.
pub(super) fn max(ops: &dyn LayerOps, values: &mut Buffer<f32>) -> Result<(), Error> {
    let Some(processes) = several(ops) else { return Ok(()) };
    let len = values.len();
    // Floats that are not negative have the order of their bits.
    on_host(ops, values, len, |values| processes.max(bytemuck::cast_slice_mut(values)))
}

/// Sets the rows that this process owns, of `rows` of a matrix `[N, K]` at the start of `values`, to their sums over all
/// processes; the others hold nothing afterwards. Where there is one owner, all of them are his in every process.
pub(super) fn sum(
    ops: &dyn LayerOps,
    values: &mut Buffer<i32>,
    rows: &Range<usize>,
    cols: usize,
    shard: RowShard,
) -> Result<(), Error> {
    let Some(processes) = several(ops) else { return Ok(()) };
    let (len, size) = (rows.len() * cols, processes.size());
    // Where every process updates all rows, the sums are shared out evenly and handed back.
    let of = |rank: usize| match shard.is_whole() {
        true => vec![part_of(len, rank, size)],
        false => pieces_at(shard.of_rank(rank), rows, cols),
    };
    let own = of(processes.rank());
    let count: usize = own.iter().map(Range::len).sum();
    let mut send = Transfer::<i32>::zeroed(ops.ledger(), "gradients to send", len);
    let mut received = Transfer::<i32>::zeroed(ops.ledger(), "received gradients", size * count);
    if is_planned(ops) {
        return Ok(());
    }
    on_host(ops, values, len, |values| {
        let (mut send_parts, mut end) = (Vec::new(), 0);
        for rank in 0..size {
            let start = end;
            for piece in of(rank) {
                send[end..end + piece.len()].copy_from_slice(&values[piece.clone()]);
                end += piece.len();
            }
            send_parts.push(start * WORD..end * WORD);
        }
        let parts: Vec<_> =
            (0..size).map(|rank| rank * count * WORD..(rank + 1) * count * WORD).collect();
        let bytes = bytemuck::cast_slice(&send[..]);
        let into = bytemuck::cast_slice_mut(&mut received[..]);
        processes.exchange(bytes, &send_parts, into, &parts)?;
        let (sums, theirs) = received.split_at_mut(count);
        for theirs in theirs.chunks_exact(count.max(1)) {
            for (sum, value) in sums.iter_mut().zip(theirs) {
                *sum = sum.wrapping_add(*value);
            }
        }
        let mut sums = &*sums;
        for piece in own {
            let (here, behind) = sums.split_at(piece.len());
            values[piece].copy_from_slice(here);
            sums = behind;
        }
        match shard.is_whole() {
            true => processes.gather(bytemuck::cast_slice_mut(values), &send_parts),
            false => Ok(()),
        }
    })
}

/// Bytes of a whole number, or of a float.
const WORD: usize = 4;

/// Where the owned rows among `rows` are in a buffer that begins with `rows`.
fn pieces_at(shard: RowShard, rows: &Range<usize>, width: usize) -> Vec<Range<usize>> {
    let at = |row: usize| (row - rows.start) * width;
    shard.pieces(rows.clone()).map(|piece| at(piece.start)..at(piece.end)).collect()
}

/// A plane of a matrix, of which each row takes a range of bytes.
struct Plane<'a> {
    raw: &'a mut RawBuffer,
    bytes_of: BytesOf,
}

/// The bytes that some rows take in a plane.
type BytesOf = Box<dyn Fn(&Range<usize>) -> Range<usize>>;

/// Gives every process what the owners of `rows` have made of them: scales, the high plane, protected weights, and the
/// residual where all keep it.
pub fn share_rows(
    ops: &dyn LayerOps,
    weight: &mut HybridMatrix,
    rows: &Range<usize>,
) -> Result<(), Error> {
    let Some(processes) = several(ops) else { return Ok(()) };
    let (n, cols, format) = (weight.rows(), weight.cols(), weight.format());
    let all_keep_residual = weight.residual_shard().is_whole();
    let fixed = |width: usize| {
        Box::new(move |rows: &Range<usize>| rows.start * width..rows.end * width) as BytesOf
    };
    let mut planes = vec![
        Plane { raw: weight.q.raw_mut(), bytes_of: fixed(cols) },
        Plane { raw: weight.scale.raw_mut(), bytes_of: fixed(WORD) },
    ];
    if all_keep_residual && let Some(residual) = &mut weight.residual {
        planes.push(Plane {
            raw: residual.raw_mut(),
            bytes_of: fixed(format.residual.row_bytes(cols)),
        });
    }
    if let Some(protected) = &mut weight.protected {
        let starts = protected.row_start.to_vec(ops)?;
        let bytes_of = Box::new(move |rows: &Range<usize>| {
            2 * starts[rows.start] as usize..2 * starts[rows.end] as usize
        });
        planes.push(Plane { raw: protected.values.raw_mut(), bytes_of });
    }
    share(ops, processes, &mut planes, rows, RowShard::of(processes, n))
}

fn share(
    ops: &dyn LayerOps,
    processes: &dyn Communicator,
    planes: &mut [Plane<'_>],
    rows: &Range<usize>,
    shard: RowShard,
) -> Result<(), Error> {
    let pieces = |rank: usize| shard.of_rank(rank).pieces(rows.clone()).collect::<Vec<_>>();
    let length = |rank: usize| -> usize {
        let of_piece =
            |piece| planes.iter().map(|plane| (plane.bytes_of)(piece).len()).sum::<usize>();
        pieces(rank).iter().map(of_piece).sum()
    };
    let mut parts: Vec<Range<usize>> = Vec::new();
    for rank in 0..processes.size() {
        let start = parts.last().map_or(0, |part| part.end);
        parts.push(start..start + length(rank));
    }
    let all = parts.last().map_or(0, |part| part.end);
    let mut bytes = Transfer::<u8>::zeroed(ops.ledger(), "updated rows", all);
    if is_planned(ops) {
        return Ok(());
    }
    let mut own = &mut bytes[parts[processes.rank()].clone()];
    for piece in pieces(processes.rank()) {
        for plane in planes.iter() {
            let from = (plane.bytes_of)(&piece);
            let (here, behind) = std::mem::take(&mut own).split_at_mut(from.len());
            ops.download_raw(plane.raw, from.start, here)?;
            own = behind;
        }
    }
    processes.gather(&mut bytes, &parts)?;
    for rank in (0..processes.size()).filter(|&rank| rank != processes.rank()) {
        let mut theirs = &bytes[parts[rank].clone()];
        for piece in pieces(rank) {
            for plane in planes.iter_mut() {
                let to = (plane.bytes_of)(&piece);
                let (here, behind) = theirs.split_at(to.len());
                ops.upload_raw(plane.raw, to.start, here)?;
                theirs = behind;
            }
        }
    }
    Ok(())
}

/// Fills `out` with `rows` of a plane of `width` bytes a row, of which each process has those that it owns.
pub fn gather_rows(
    device: &dyn Device,
    plane: &RawBuffer,
    shard: RowShard,
    rows: &Range<usize>,
    out: &mut [u8],
) -> Result<(), qft_tensor::Error> {
    let processes = device.communicator();
    let width = out.len() / rows.len().max(1);
    let mut parts: Vec<Range<usize>> = Vec::new();
    for rank in 0..processes.size() {
        let start = parts.last().map_or(0, |part| part.end);
        let owned: usize = shard.of_rank(rank).pieces(rows.clone()).map(|piece| piece.len()).sum();
        parts.push(start..start + owned * width);
    }
    let mut bytes = vec![0u8; out.len()];
    let own = &mut bytes[parts[processes.rank()].clone()];
    if !own.is_empty() {
        let first = shard.pieces(rows.clone()).next().map_or(0, |piece| shard.place(piece.start));
        // Owned rows that follow each other are neighbours.
        device.download_raw(plane, first * width, own)?;
    }
    processes.gather(&mut bytes, &parts)?;
    for (rank, part) in parts.into_iter().enumerate() {
        let mut theirs = &bytes[part];
        for piece in pieces_at(shard.of_rank(rank), rows, width) {
            let (here, behind) = theirs.split_at(piece.len());
            out[piece].copy_from_slice(here);
            theirs = behind;
        }
    }
    Ok(())
}

/// Gives all processes the first `len` values of the one that has micro-batch `number` of `count`.
pub(super) fn hand_out(
    ops: &dyn LayerOps,
    values: &mut Buffer<f32>,
    len: usize,
    (number, count): (usize, usize),
) -> Result<(), Error> {
    let Some(processes) = several(ops) else { return Ok(()) };
    if is_planned(ops) {
        return Ok(());
    }
    let from = owner_of(number, count, processes.size());
    let parts: Vec<_> = (0..processes.size())
        .map(|rank| if rank == from { 0..len * size_of::<f32>() } else { 0..0 })
        .collect();
    on_host(ops, values, len, |values| processes.gather(bytemuck::cast_slice_mut(values), &parts))
}

/// Whether this process computes a micro-batch of `count` that another one has: nothing of it is counted.
pub(super) fn is_idle(ops: &dyn LayerOps, count: usize) -> bool {
    let processes = ops.communicator();
    part_of(count, processes.rank(), processes.size()).is_empty()
}

/// The values of all `count` micro-batches, in their order, of which this process has `own`.
pub fn gather_values(
    processes: &dyn Communicator,
    own: &[f64],
    count: usize,
) -> Result<Vec<f64>, Error> {
    let (mut all, part) = (vec![0.0; count], part_of(count, processes.rank(), processes.size()));
    let counted = part.len();
    all[part].copy_from_slice(&own[..counted]);
    let parts = parts(processes, count, size_of::<f64>());
    processes.gather(bytemuck::cast_slice_mut(&mut all), &parts)?;
    Ok(all)
}

/// The buffers of all micro-batches, in their order, of which this process has `own`; `lens` are the lengths of all.
pub fn gather_buffers(
    ops: &dyn LayerOps,
    own: Vec<Buffer<f32>>,
    lens: &[usize],
    name: &'static str,
) -> Result<Vec<Buffer<f32>>, Error> {
    let Some(processes) = several(ops) else { return Ok(own) };
    let mut starts = vec![0];
    starts.extend(lens.iter().scan(0, |sum, len| {
        *sum += len;
        Some(*sum)
    }));
    let part = |rank| part_of(lens.len(), rank, processes.size());
    let bytes = |rank| starts[part(rank).start] * 4..starts[part(rank).end] * 4;
    let parts: Vec<_> = (0..processes.size()).map(bytes).collect();
    let mut all = Transfer::<f32>::zeroed(ops.ledger(), name, starts[lens.len()]);
    let counted = part(processes.rank());
    let first = counted.start;
    for (i, own) in own.iter().enumerate().take(counted.len()) {
        own.download(ops, 0, &mut all[starts[first + i]..starts[first + i + 1]])?;
    }
    drop(own);
    processes.gather(bytemuck::cast_slice_mut(&mut all[..]), &parts)?;
    let values = starts.windows(2).map(|ends| &all[ends[0]..ends[1]]);
    let buffers = values.map(|values| Buffer::from_host(ops, Owner::Gradients, name, values));
    Ok(buffers.collect::<Result<_, _>>()?)
}
