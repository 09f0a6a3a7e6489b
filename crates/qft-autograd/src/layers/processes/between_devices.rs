//! Exchanges of gradients and updated rows between the memories of devices. Nothing is packed: between devices the wire is
//! faster than any of them could pack.

use super::updated::{Plane, pieces, planes};
use super::{WORD, one_behind_the_other, pieces_at};
use crate::{Error, LayerOps};
use qft_quant::HybridMatrix;
use qft_tensor::collectives::{Exchange, UnderWay, exchange};
use qft_tensor::pieces::{pack, unpack};
use qft_tensor::{Buffer, Collectives, Owner, RowShard};
use std::ops::Range;

/// Rows of a gradient on their way to their owners.
#[derive(Debug)]
pub(super) struct SumsUnderWay(UnderWay<Sums>);

#[derive(Debug)]
struct Sums {
    /// i32 `[size, len]`: the rows of each owner, and room up to the length of the longest.
    shares: Buffer<i32>,
    /// i32 `[len]`.
    sums: Buffer<i32>,
}

impl Sums {
    fn exchange(&mut self) -> Exchange<'_> {
        let len = self.sums.len();
        Exchange::Sum { shares: self.shares.raw(), sums: self.sums.raw_mut(), len }
    }
}

impl SumsUnderWay {
    /// Sends each process the rows that it owns of `units`, i32 `[rows, K]` at the start, each of `width` bytes.
    pub(super) fn start(
        ops: &dyn LayerOps,
        collectives: &dyn Collectives,
        units: &Buffer<i32>,
        (shard, rows, width): (RowShard, &Range<usize>, usize),
    ) -> Result<Self, Error> {
        let size = ops.communicator().size();
        let parts: Vec<_> =
            (0..size).map(|rank| pieces_at(shard.of_rank(rank), rows, width)).collect();
        let longest = parts.iter().map(|part| part.iter().map(Range::len).sum()).max();
        let len = longest.unwrap_or(0) / WORD;
        let buffer = |name, len| Buffer::alloc(ops, Owner::Gradients, name, len);
        let mut shares = buffer("shares of gradients", size * len)?;
        let sums = buffer("sums of gradients", len)?;
        for (rank, part) in parts.into_iter().enumerate() {
            pack(ops, (shares.raw_mut(), rank * len * WORD), units.raw(), part)?;
        }
        Ok(Self(UnderWay::start(collectives, Sums { shares, sums }, Sums::exchange)?))
    }

    /// Waits for the sums of the rows that this process owns, and copies them to their places in `sum`, i32 `[rows, K]`.
    pub(super) fn finish(
        self,
        ops: &dyn LayerOps,
        collectives: &dyn Collectives,
        sum: &mut Buffer<i32>,
        (shard, rows, width): (RowShard, &Range<usize>, usize),
    ) -> Result<(), Error> {
        let Sums { sums, .. } = self.0.wait(collectives)?;
        unpack(ops, sum.raw_mut(), (sums.raw(), 0), pieces_at(shard, rows, width))?;
        Ok(())
    }
}

/// Updated rows on their way from their owners to everyone.
#[derive(Debug)]
pub(super) struct RowsUnderWay(UnderWay<Rows>);

#[derive(Debug)]
struct Rows {
    bytes: Buffer<u8>,
    /// Those of each owner, plane by plane.
    parts: Vec<Range<usize>>,
}

impl Rows {
    fn exchange(&mut self) -> Exchange<'_> {
        Exchange::Gather { bytes: self.bytes.raw_mut(), parts: &self.parts }
    }
}

impl RowsUnderWay {
    /// Sends every process those of `rows` of `weight` that this one owns.
    pub(super) fn start(
        ops: &dyn LayerOps,
        collectives: &dyn Collectives,
        weight: &mut HybridMatrix,
        (shard, rows): (RowShard, &Range<usize>),
    ) -> Result<Self, Error> {
        let (rank, size) = (ops.communicator().rank(), ops.communicator().size());
        let planes = planes(ops, weight)?;
        let len = |rank| planes.iter().map(|plane| plane.len(&pieces(shard, rank, rows))).sum();
        let parts = one_behind_the_other((0..size).map(len));
        let total = parts.last().map_or(0, |part| part.end);
        let mut bytes = Buffer::<u8>::alloc(ops, Owner::Gradients, "updated rows", total)?;
        let mut start = parts[rank].start;
        for Plane { raw, bytes_of } in &planes {
            let ranges = pieces(shard, rank, rows);
            let ranges = ranges.iter().map(bytes_of);
            start = pack(ops, (bytes.raw_mut(), start), raw, ranges)?;
        }
        Ok(Self(UnderWay::start(collectives, Rows { bytes, parts }, Rows::exchange)?))
    }

    /// Waits for the rows of other processes, and copies them to their places.
    pub(super) fn finish(
        self,
        ops: &dyn LayerOps,
        collectives: &dyn Collectives,
        weight: &mut HybridMatrix,
        (shard, rows): (RowShard, &Range<usize>),
    ) -> Result<(), Error> {
        let Rows { bytes, parts } = self.0.wait(collectives)?;
        let mut planes = planes(ops, weight)?;
        let own = ops.communicator().rank();
        for (rank, part) in parts.into_iter().enumerate().filter(|&(rank, _)| rank != own) {
            let (ranges, mut start) = (pieces(shard, rank, rows), part.start);
            for Plane { raw, bytes_of } in &mut planes {
                let ranges = ranges.iter().map(&*bytes_of);
                start = unpack(ops, raw, (bytes.raw(), start), ranges)?;
            }
        }
        Ok(())
    }
}

/// As [`super::gather_buffers`]: `own` are those of the buffers from `first` on that count, of which `starts` has the beginnings
/// in elements, and the end of the last; `parts` are the bytes of each process.
pub(super) fn gather_buffers(
    ops: &dyn LayerOps,
    collectives: &dyn Collectives,
    own: &[Buffer<f32>],
    (first, starts): (usize, &[usize]),
    parts: &[Range<usize>],
    name: &'static str,
) -> Result<Vec<Buffer<f32>>, Error> {
    let end = starts.last().copied().unwrap_or(0);
    let mut all = Buffer::<f32>::alloc(ops, Owner::Gradients, name, end)?;
    for (own, start) in own.iter().zip(&starts[first..]) {
        all.copy_from(ops, *start, own, 0..own.len())?;
    }
    exchange(collectives, Exchange::Gather { bytes: all.raw_mut(), parts })?;
    let buffer = |ends: &[usize]| {
        let mut buffer = Buffer::alloc(ops, Owner::Gradients, name, ends[1] - ends[0])?;
        buffer.copy_from(ops, 0, &all, ends[0]..ends[1])?;
        Ok(buffer)
    };
    starts.windows(2).map(buffer).collect()
}
