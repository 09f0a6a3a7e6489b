//! What the processes of a job exchange in a step. Alone, a process does nothing here.

mod between_devices;
mod changes;
mod late;
mod packing;
mod updated;

pub(super) use late::UnitRows;
pub use late::{LateGradients, Lookups};
pub use updated::{Before, LateUpdates, settle, share_rows};

use crate::{Error, LayerOps};
use bytemuck::Pod;
use qft_tensor::buffer::RawBuffer;
use qft_tensor::collectives::{Exchange, exchange};
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
    if let Some(collectives) = ops.collectives() {
        return Ok(exchange(collectives, Exchange::Max { values: values.raw_mut(), len })?);
    }
    // Floats that are not negative have the order of their bits.
    on_host(ops, values, len, |values| processes.max(bytemuck::cast_slice_mut(values)))
}

/// A communicator of several processes has to have what exchanges in the background.
fn no_background() -> Error {
    Error::WrongSaved { layer: "processes", what: "nothing exchanges in the background" }
}

/// Bytes of a whole number, or of a float.
const WORD: usize = 4;

/// Where the owned rows among `rows` are in a buffer that begins with `rows`.
fn pieces_at(shard: RowShard, rows: &Range<usize>, width: usize) -> Vec<Range<usize>> {
    let at = |row: usize| (row - rows.start) * width;
    shard.pieces(rows.clone()).map(|piece| at(piece.start)..at(piece.end)).collect()
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
    let from = owner_of(number, count, processes.size());
    let parts: Vec<_> = (0..processes.size())
        .map(|rank| if rank == from { 0..len * size_of::<f32>() } else { 0..0 })
        .collect();
    if let Some(collectives) = ops.collectives() {
        let gather = Exchange::Gather { bytes: values.raw_mut(), parts: &parts };
        return Ok(exchange(collectives, gather)?);
    }
    if is_planned(ops) {
        return Ok(());
    }
    on_host(ops, values, len, |values| processes.gather(bytemuck::cast_slice_mut(values), &parts))
}

/// Ranges of these lengths, one behind the other.
fn one_behind_the_other(lens: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut end = 0;
    let after = |len| {
        let start = end;
        end += len;
        start..end
    };
    lens.into_iter().map(after).collect()
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
    let first = part(processes.rank()).start;
    let counted = part(processes.rank()).len();
    if let Some(collectives) = ops.collectives() {
        let (own, places) = (&own[..counted], (first, &starts[..]));
        return between_devices::gather_buffers(ops, collectives, own, places, &parts, name);
    }
    let mut all = Transfer::<f32>::between_processes(ops.ledger(), name, starts[lens.len()]);
    // Where memory is counted, none of it is touched.
    if !is_planned(ops) {
        for (i, own) in own.iter().enumerate().take(counted) {
            own.download(ops, 0, &mut all[starts[first + i]..starts[first + i + 1]])?;
        }
    }
    drop(own);
    if !is_planned(ops) {
        processes.gather(bytemuck::cast_slice_mut(&mut all[..]), &parts)?;
    }
    let values = starts.windows(2).map(|ends| &all[ends[0]..ends[1]]);
    let buffers = values.map(|values| Buffer::from_host(ops, Owner::Gradients, name, values));
    Ok(buffers.collect::<Result<_, _>>()?)
}
