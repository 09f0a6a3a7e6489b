//! Updated rows on their way from their owners to everyone.

use super::between_devices::RowsUnderWay;
use super::{WORD, changes, is_planned, no_background, one_behind_the_other, several};
use crate::{Error, LayerOps, Matrix, Weight};
use qft_quant::HybridMatrix;
use qft_tensor::buffer::RawBuffer;
use qft_tensor::{Communicator, Ledger, RowShard, Started, Transfer};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Updates of a matrix's rows on their way, in the order in which they were started.
#[derive(Debug, Default)]
pub struct LateUpdates(VecDeque<LateUpdate>);

/// What the owners of some rows have made of them.
#[derive(Debug)]
struct LateUpdate {
    rows: Range<usize>,
    gathered: Gathered,
}

/// What every process brings, of any length, and where it is.
type Parts = (Transfer<u8>, Vec<Range<usize>>);

#[derive(Debug)]
enum Gathered {
    Started(Started<Parts>),
    BetweenDevices(RowsUnderWay),
    /// Where memory is counted.
    Planned {
        _bytes: Transfer<u8>,
    },
}

/// The INT8 weights of the rows that this process is about to update, as all know them, where changes are sent.
#[derive(Debug)]
pub struct Before(Option<Transfer<u8>>);

impl Before {
    /// Of its rows among `rows`; nothing where a process is alone, or devices exchange whole rows.
    pub fn of(
        ops: &dyn LayerOps,
        weight: &HybridMatrix,
        rows: &Range<usize>,
    ) -> Result<Self, Error> {
        let hosts = several(ops).filter(|_| ops.collectives().is_none());
        let Some(processes) = hosts else { return Ok(Self(None)) };
        let shard = RowShard::of(processes, weight.rows());
        own_weights(ops, weight, shard, rows).map(|weights| Self(Some(weights)))
    }
}

/// The INT8 weights of the owned rows among `rows`, one row behind the other.
fn own_weights(
    ops: &dyn LayerOps,
    weight: &HybridMatrix,
    shard: RowShard,
    rows: &Range<usize>,
) -> Result<Transfer<u8>, Error> {
    let cols = weight.cols();
    let count: usize = shard.pieces(rows.clone()).map(|piece| piece.len()).sum();
    let (name, len) = ("owned weights", count * cols);
    if is_planned(ops) {
        return Ok(Transfer::planned(ops.ledger(), name, len));
    }
    let mut bytes = Transfer::between_processes(ops.ledger(), name, len);
    let mut to = &mut bytes[..];
    for piece in shard.pieces(rows.clone()) {
        let (here, behind) = std::mem::take(&mut to).split_at_mut(piece.len() * cols);
        ops.download_raw(weight.q.raw(), piece.start * cols, here)?;
        to = behind;
    }
    Ok(bytes)
}

/// A plane of a matrix, of which each row takes a range of bytes.
pub(super) struct Plane<'a> {
    pub(super) raw: &'a mut RawBuffer,
    pub(super) bytes_of: BytesOf,
}

impl Plane<'_> {
    /// The bytes that rows take.
    pub(super) fn len(&self, pieces: &[Range<usize>]) -> usize {
        pieces.iter().map(|piece| (self.bytes_of)(piece).len()).sum()
    }
}

/// The bytes that some rows take in a plane.
pub(super) type BytesOf = Box<dyn Fn(&Range<usize>) -> Range<usize>>;

/// All planes that owners of rows change for everyone: the INT8 weights, scales, protected weights, and the residual where all
/// keep it.
pub(super) fn planes<'a>(
    ops: &dyn LayerOps,
    weight: &'a mut HybridMatrix,
) -> Result<Vec<Plane<'a>>, Error> {
    let (cols, format) = (weight.cols(), weight.format());
    let all_keep_residual = weight.residual_shard().is_whole();
    let fixed = |width: usize| {
        Box::new(move |rows: &Range<usize>| rows.start * width..rows.end * width) as BytesOf
    };
    let mut planes = vec![
        Plane { raw: weight.q.raw_mut(), bytes_of: fixed(cols) },
        Plane { raw: weight.scale.raw_mut(), bytes_of: fixed(WORD) },
    ];
    if all_keep_residual && let Some(residual) = &mut weight.residual {
        let bytes_of = fixed(format.residual.row_bytes(cols));
        planes.push(Plane { raw: residual.raw_mut(), bytes_of });
    }
    if let Some(protected) = &mut weight.protected {
        let starts = protected.row_start.to_vec(ops)?;
        let bytes_of = Box::new(move |rows: &Range<usize>| {
            2 * starts[rows.start] as usize..2 * starts[rows.end] as usize
        });
        planes.push(Plane { raw: protected.values.raw_mut(), bytes_of });
    }
    Ok(planes)
}

/// Those but the INT8 weights.
fn small_planes<'a>(
    ops: &dyn LayerOps,
    weight: &'a mut HybridMatrix,
) -> Result<Vec<Plane<'a>>, Error> {
    Ok(planes(ops, weight)?.split_off(1))
}

/// The bytes that rows take in all of these planes.
fn length(planes: &[Plane<'_>], pieces: &[Range<usize>]) -> usize {
    planes.iter().map(|plane| plane.len(pieces)).sum()
}

/// Sends every process what the owners of `rows` have made of them: the changes of INT8 weights, and the other planes as they
/// are. [`settle`] takes over what comes.
///
/// Errors: the job is lost.
pub fn share_rows(
    ops: &dyn LayerOps,
    matrix: &mut Matrix,
    rows: &Range<usize>,
    before: Before,
) -> Result<(), Error> {
    let (Some(processes), Weight::Hybrid(weight)) = (several(ops), &mut matrix.weight) else {
        return Ok(());
    };
    let (cols, shard) = (weight.cols(), RowShard::of(processes, weight.rows()));
    if let Some(collectives) = ops.collectives() {
        let started = RowsUnderWay::start(ops, collectives, weight, (shard, rows))?;
        let gathered = Gathered::BetweenDevices(started);
        matrix.updates.0.push_back(LateUpdate { rows: rows.clone(), gathered });
        return Ok(());
    }
    let Before(Some(before)) = before else { return Ok(()) };
    let after = own_weights(ops, weight, shard, rows)?;
    let planes = small_planes(ops, weight)?;
    let ledger = Arc::clone(ops.ledger());
    let gathered = if is_planned(ops) {
        let of = |rank| {
            let pieces = pieces(shard, rank, rows);
            changes::most(pieces.iter().map(Range::len).sum(), cols) + length(&planes, &pieces)
        };
        let len = (0..processes.size()).map(of).sum();
        Gathered::Planned { _bytes: Transfer::planned(&ledger, "updated rows", len) }
    } else {
        let own = pieces(shard, processes.rank(), rows);
        let mut bytes = vec![0; length(&planes, &own)];
        let mut to = &mut bytes[..];
        for piece in &own {
            for plane in &planes {
                let from = (plane.bytes_of)(piece);
                let (here, behind) = std::mem::take(&mut to).split_at_mut(from.len());
                ops.download_raw(plane.raw, from.start, here)?;
                to = behind;
            }
        }
        changes::describe(&before, &after, cols, &mut bytes);
        let background = processes.background().ok_or_else(no_background)?;
        Gathered::Started(background.start(move |line| gather(line, bytes, &ledger)))
    };
    drop(planes);
    matrix.updates.0.push_back(LateUpdate { rows: rows.clone(), gathered });
    Ok(())
}

/// Waits for what other processes have made of their rows until no more than `keep` updates are on their way, and takes it over.
/// Before the matrix is used again, all must be settled.
///
/// Errors: the job is lost.
pub fn settle(ops: &dyn LayerOps, matrix: &mut Matrix, keep: usize) -> Result<(), Error> {
    while matrix.updates.0.len() > keep
        && let Some(LateUpdate { rows, gathered }) = matrix.updates.0.pop_front()
    {
        let Weight::Hybrid(weight) = &mut matrix.weight else { continue };
        match (gathered, ops.collectives()) {
            (Gathered::Started(started), _) => take_over(ops, weight, &rows, &started.wait()?)?,
            (Gathered::BetweenDevices(started), Some(collectives)) => {
                let shard = RowShard::of(ops.communicator(), weight.rows());
                started.finish(ops, collectives, weight, (shard, &rows))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets the rows of others among `rows` to what they have made of them.
fn take_over(
    ops: &dyn LayerOps,
    weight: &mut HybridMatrix,
    rows: &Range<usize>,
    (bytes, parts): &Parts,
) -> Result<(), Error> {
    let processes = ops.communicator();
    let shard = RowShard::of(processes, weight.rows());
    let mut changes = Vec::new();
    let mut planes = small_planes(ops, weight)?;
    for rank in (0..processes.size()).filter(|&rank| rank != processes.rank()) {
        let (mut theirs, pieces) = (&bytes[parts[rank].clone()], pieces(shard, rank, rows));
        if theirs.len() < length(&planes, &pieces) {
            return Err(misfit(processes));
        }
        for piece in &pieces {
            for plane in &mut planes {
                let to = (plane.bytes_of)(piece);
                let (here, behind) = theirs.split_at(to.len());
                ops.upload_raw(plane.raw, to.start, here)?;
                theirs = behind;
            }
        }
        changes.push((pieces, theirs));
    }
    drop(planes);
    changes.into_iter().try_for_each(|(pieces, changes)| apply(ops, weight, &pieces, changes))
}

/// The rows among `rows` that a process owns.
pub(super) fn pieces(shard: RowShard, rank: usize, rows: &Range<usize>) -> Vec<Range<usize>> {
    shard.of_rank(rank).pieces(rows.clone()).collect()
}

/// Changes INT8 weights of these rows.
fn apply(
    ops: &dyn LayerOps,
    weight: &mut HybridMatrix,
    pieces: &[Range<usize>],
    changes: &[u8],
) -> Result<(), Error> {
    let cols = weight.cols();
    let places = one_behind_the_other(pieces.iter().map(|piece| piece.len() * cols));
    let mut rows = vec![0; places.last().map_or(0, |place| place.end)];
    for (piece, place) in pieces.iter().zip(&places) {
        ops.download_raw(weight.q.raw(), piece.start * cols, &mut rows[place.clone()])?;
    }
    if changes::apply(changes, &mut rows, cols).is_none() {
        return Err(misfit(ops.communicator()));
    }
    for (piece, place) in pieces.iter().zip(places) {
        ops.upload_raw(weight.q.raw_mut(), piece.start * cols, &rows[place])?;
    }
    Ok(())
}

/// What every process brings, which may be of any length, and where it is.
fn gather(
    processes: &dyn Communicator,
    own: Vec<u8>,
    ledger: &Arc<Ledger>,
) -> Result<Parts, qft_tensor::Error> {
    let (rank, size) = (processes.rank(), processes.size());
    let words = one_behind_the_other(std::iter::repeat_n(LEN_BYTES, size));
    let mut lens = vec![0; size * LEN_BYTES];
    lens[words[rank].clone()].copy_from_slice(&(own.len() as u64).to_le_bytes());
    processes.gather(&mut lens, &words)?;
    let lens = lens.as_chunks::<LEN_BYTES>().0.iter().map(|len| u64::from_le_bytes(*len) as usize);
    let parts = one_behind_the_other(lens);
    let len = parts.last().map_or(0, |part| part.end);
    let mut bytes = Transfer::<u8>::between_processes(ledger, "updated rows", len);
    bytes[parts[rank].clone()].copy_from_slice(&own);
    drop(own);
    processes.gather(&mut bytes, &parts)?;
    Ok((bytes, parts))
}

/// Bytes of a length.
const LEN_BYTES: usize = size_of::<u64>();

fn misfit(processes: &dyn Communicator) -> Error {
    let (rank, size) = (processes.rank(), processes.size());
    let message = "another process sent rows of another shape".to_owned();
    qft_tensor::Error::Communication { rank, size, message }.into()
}
