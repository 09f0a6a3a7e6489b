//! Gradients that come later: the shares of other processes are on their way while this one goes on with the layers before.
//!
//! All processes start the same exchanges in the same order, and finish them in that order.

use super::between_devices::SumsUnderWay;
use super::packing::{self, Rows};
use super::{WORD, is_planned, no_background, one_behind_the_other, pieces_at};
use crate::ops::{EmbedBackward, FromUnits};
use crate::{Context, Error, GradientSink, LayerOps, Matrix, TensorId};
use qft_tensor::{Buffer, Communicator, Ledger, Owner, RowShard, Started, Transfer};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Ids `[T]` and gradients f32 `[T, C]` of an embedding, per micro-batch.
pub type Lookups<'a> = &'a [(&'a Buffer<u32>, &'a Buffer<f32>)];

/// Rows of gradients on their way, in the order in which they were started.
#[derive(Debug, Default)]
pub struct LateGradients(VecDeque<LateRows>);

/// Whole numbers that stand for rows of a gradient, and their units.
#[derive(Debug)]
pub(in crate::layers) struct UnitRows<'a> {
    /// Of the gradient of this matrix,
    pub(in crate::layers) id: TensorId,
    /// these rows,
    pub(in crate::layers) rows: Range<usize>,
    /// which are so wide.
    pub(in crate::layers) cols: usize,
    /// Who updates them.
    pub(in crate::layers) shard: RowShard,
    /// What this process adds, i32 `[rows, K]` at the start.
    pub(in crate::layers) units: &'a Buffer<i32>,
    /// f32 `[rows]`.
    pub(in crate::layers) bound: Buffer<f32>,
}

/// As [`UnitRows`], without the numbers.
#[derive(Debug)]
struct LateRows {
    id: TensorId,
    rows: Range<usize>,
    cols: usize,
    shard: RowShard,
    bound: Buffer<f32>,
    sums: Sums,
}

/// The sums over all processes of the rows that this one updates.
#[derive(Debug)]
enum Sums {
    Started(Started<Transfer<i32>>),
    BetweenDevices(SumsUnderWay),
    /// Where memory is counted.
    Planned {
        _sums: Transfer<i32>,
        _sent: Transfer<u8>,
    },
}

impl LateGradients {
    /// How many blocks of rows are on their way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The matrix of the oldest.
    pub fn next(&self) -> Option<TensorId> {
        self.0.front().map(|rows| rows.id)
    }

    /// Sends other processes their part of these rows.
    pub(in crate::layers) fn start(
        &mut self,
        ctx: &Context<'_>,
        from: UnitRows<'_>,
    ) -> Result<(), Error> {
        let UnitRows { id, rows, cols, shard, units, bound } = from;
        let (ops, processes) = (ctx.ops, ctx.ops.communicator());
        let of = |rank: usize| pieces_at(shard.of_rank(rank), &rows, cols);
        let own = of(processes.rank());
        let count: usize = own.iter().map(Range::len).sum();
        let ledger = ops.ledger();
        let sums = if let Some(collectives) = ops.collectives() {
            let owned = (shard, &rows, cols * WORD);
            Sums::BetweenDevices(SumsUnderWay::start(ops, collectives, units, owned)?)
        } else if is_planned(ops) {
            let others = packing::most(rows.len() - count / cols.max(1), cols);
            let received = packing::most(count / cols.max(1), cols) * (processes.size() - 1);
            let _sums = Transfer::planned(ledger, "sums of gradients", count);
            let _sent = Transfer::planned(ledger, "packed gradients", others);
            // Of one exchange at a time.
            drop(Transfer::<u8>::planned(ledger, "received gradients", received));
            Sums::Planned { _sums, _sent }
        } else {
            let values = host_values(ctx, units, rows.len() * cols)?;
            let sums = own.into_iter().map(|piece| &values[piece]);
            let sums = Transfer::joined(Owner::Exchange, ledger, "sums of gradients", sums);
            let sent = Sent::of(ops, &values, (0..processes.size()).map(of).collect(), cols)?;
            let background = processes.background().ok_or_else(no_background)?;
            let ledger = Arc::clone(ledger);
            Sums::Started(background.start(move |line| add_all(line, sent, sums, cols, &ledger)))
        };
        self.0.push_back(LateRows { id, rows, cols, shard, bound, sums });
        Ok(())
    }

    /// Waits for the oldest rows, adds what `lookups` bring, and hands them to `sink`; `matrix` is the one of
    /// [`next`](Self::next).
    ///
    /// Errors: the job is lost; those of the sink.
    pub(crate) fn finish(
        &mut self,
        ctx: &Context<'_>,
        matrix: &mut Matrix,
        lookups: Lookups<'_>,
        sink: &mut dyn GradientSink,
    ) -> Result<(), Error> {
        let Some(LateRows { id, rows, cols, shard, bound, sums }) = self.0.pop_front() else {
            return Ok(());
        };
        if id != matrix.id {
            return Err(Error::WrongSaved { layer: "linear", what: "gradients of another matrix" });
        }
        let (ops, len) = (ctx.ops, rows.len() * cols);
        let mut sum = Buffer::alloc(ops, Owner::Gradients, "sum of gradients", len)?;
        match (sums, ops.collectives()) {
            (Sums::Started(started), _) => {
                let sums = started.wait()?;
                let mut own = &sums[..];
                for piece in pieces_at(shard, &rows, cols) {
                    let (here, behind) = own.split_at(piece.len());
                    sum.upload(ops, piece.start, here)?;
                    own = behind;
                }
            }
            (Sums::BetweenDevices(sums), Some(collectives)) => {
                sums.finish(ops, collectives, &mut sum, (shard, &rows, cols * WORD))?;
            }
            _ => {}
        }
        let mut grad = Buffer::alloc(ops, Owner::Gradients, "gradient block", len)?;
        let count = ctx.micro_batches as u32;
        let bound = bound.all();
        ops.from_units(FromUnits { sum: &sum, bound, count, cols, values: &mut grad })?;
        drop(sum);
        for (ids, dy) in lookups {
            let grad = grad.mat_mut(rows.len(), cols)?;
            ops.embed_backward(EmbedBackward { ids, dy, rows: rows.clone(), grad })?;
        }
        sink.matrix_rows(matrix, rows, &mut grad)
    }
}

/// What goes to each process.
struct Sent {
    bytes: Transfer<u8>,
    parts: Vec<Range<usize>>,
}

impl Sent {
    /// The rows of `values`, `cols` wide, that each process updates; its own stay here.
    fn of(
        ops: &dyn LayerOps,
        values: &[i32],
        mut ranges: Vec<Vec<Range<usize>>>,
        cols: usize,
    ) -> Result<Self, Error> {
        let host = ops.host()?;
        ranges[ops.communicator().rank()].clear();
        let rows = ranges.iter().map(|ranges| Rows::of(host, values, ranges, cols));
        let rows: Vec<_> = rows.collect();
        let parts = one_behind_the_other(rows.iter().map(Rows::packed_len));
        let len = parts.last().map_or(0, |part| part.end);
        let mut bytes = Transfer::between_processes(ops.ledger(), "packed gradients", len);
        for (part, rows) in parts.iter().zip(rows) {
            rows.pack(host, &mut bytes[part.clone()]);
        }
        Ok(Self { bytes, parts })
    }
}

/// The first `len` values of a buffer.
fn host_values<'a>(
    ctx: &Context<'_>,
    buffer: &'a Buffer<i32>,
    len: usize,
) -> Result<std::borrow::Cow<'a, [i32]>, Error> {
    if let Ok(values) = buffer.host() {
        return Ok(values[..len].into());
    }
    let mut values = vec![0; len];
    buffer.download(ctx.ops, 0, &mut values)?;
    Ok(values.into())
}

/// Adds what all other processes send to `sums`, of rows `cols` wide.
fn add_all(
    line: &dyn Communicator,
    sent: Sent,
    mut sums: Transfer<i32>,
    cols: usize,
    ledger: &Arc<Ledger>,
) -> Result<Transfer<i32>, qft_tensor::Error> {
    const WORD: usize = size_of::<u64>();
    let (rank, size) = (line.rank(), line.size());
    let words = one_behind_the_other(std::iter::repeat_n(WORD, size));
    let lens: Vec<u8> =
        sent.parts.iter().flat_map(|part| (part.len() as u64).to_le_bytes()).collect();
    let mut theirs = vec![0; size * WORD];
    line.exchange(&lens, &words, &mut theirs, &words)?;
    let lens = theirs.as_chunks::<WORD>().0.iter().map(|len| u64::from_le_bytes(*len) as usize);
    let parts = one_behind_the_other(lens);
    let len = parts.last().map_or(0, |part| part.end);
    let mut received = Transfer::<u8>::between_processes(ledger, "received gradients", len);
    line.exchange(&sent.bytes, &sent.parts, &mut received, &parts)?;
    drop(sent);
    for part in parts.into_iter().enumerate().filter(|(of, _)| *of != rank).map(|(_, part)| part) {
        packing::add(&received[part], cols, &mut sums).ok_or_else(|| {
            let message = "another process sent gradients of another shape".to_owned();
            qft_tensor::Error::Communication { rank, size, message }
        })?;
    }
    Ok(sums)
}
