//! What the processes of a job exchange in a step. Alone, a process does nothing here.

use crate::{Error, LayerOps};
use bytemuck::Pod;
use qft_tensor::communicator::{owner_of, part_of};
use qft_tensor::{Buffer, Communicator, Device, Element, Owner};
use std::ops::Range;

/// The other processes, if there are any.
fn others(ops: &dyn LayerOps) -> Option<&dyn Communicator> {
    Some(ops.communicator()).filter(|processes| processes.size() > 1)
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
    let Some(processes) = others(ops) else { return Ok(()) };
    let len = values.len();
    // Floats that are not negative have the order of their bits.
    on_host(ops, values, len, |values| processes.max(bytemuck::cast_slice_mut(values)))
}

/// Sets the first `len` numbers to their sums over all processes.
pub(super) fn sum(ops: &dyn LayerOps, values: &mut Buffer<i32>, len: usize) -> Result<(), Error> {
    let Some(processes) = others(ops) else { return Ok(()) };
    let size = size_of::<i32>();
    let send_parts = parts(processes, len, size);
    let own = part_of(len, processes.rank(), processes.size());
    let bytes = own.len() * size;
    let receive_parts: Vec<_> =
        (0..processes.size()).map(|rank| rank * bytes..(rank + 1) * bytes).collect();
    on_host(ops, values, len, |values| {
        let mut received = vec![0i32; processes.size() * own.len()];
        let (send, receive) =
            (bytemuck::cast_slice(values), bytemuck::cast_slice_mut(&mut received));
        processes.exchange(send, &send_parts, receive, &receive_parts)?;
        let sums = &mut values[own.clone()];
        sums.fill(0);
        for received in received.chunks_exact(own.len().max(1)) {
            for (sum, value) in sums.iter_mut().zip(received) {
                *sum = sum.wrapping_add(*value);
            }
        }
        processes.gather(bytemuck::cast_slice_mut(values), &send_parts)
    })
}

/// Gives all processes the first `len` values of the one that has micro-batch `number` of `count`.
pub(super) fn hand_out(
    ops: &dyn LayerOps,
    values: &mut Buffer<f32>,
    len: usize,
    (number, count): (usize, usize),
) -> Result<(), Error> {
    let Some(processes) = others(ops) else { return Ok(()) };
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
    let Some(processes) = others(ops) else { return Ok(own) };
    let mut starts = vec![0];
    starts.extend(lens.iter().scan(0, |sum, len| {
        *sum += len;
        Some(*sum)
    }));
    let part = |rank| part_of(lens.len(), rank, processes.size());
    let bytes = |rank| starts[part(rank).start] * 4..starts[part(rank).end] * 4;
    let parts: Vec<_> = (0..processes.size()).map(bytes).collect();
    let mut all = vec![0f32; starts[lens.len()]];
    let counted = part(processes.rank());
    let first = counted.start;
    for (i, own) in own.iter().enumerate().take(counted.len()) {
        own.download(ops, 0, &mut all[starts[first + i]..starts[first + i + 1]])?;
    }
    drop(own);
    processes.gather(bytemuck::cast_slice_mut(&mut all), &parts)?;
    let values = starts.windows(2).map(|ends| &all[ends[0]..ends[1]]);
    let buffers = values.map(|values| Buffer::from_host(ops, Owner::Gradients, name, values));
    Ok(buffers.collect::<Result<_, _>>()?)
}
