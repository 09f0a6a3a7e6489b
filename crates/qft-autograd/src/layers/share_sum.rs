//! Weight gradients summed over all micro-batches of a step, whoever computes them and in whatever order.
//!
//! What a micro-batch adds to row n of a gradient is `u_n` times a sum of products of INT8 numbers over its T tokens, so at most
//! `127 * 127 * T * u_n`, and `u_n` is known before the product. The largest of these bounds gives the row a unit in which every
//! share becomes a whole number, and sums of whole numbers have no order: the bits are the same for any order and any
//! distribution. A bound over the actual values would be up to a thousand times smaller; even so, 17 bits and more are left of the
//! largest element of a row of 65,536 tokens, where INT8 has seven.
//!
//! In float, shares are added in the order of their numbers.

use super::linear::{GradientOut, PendingGradient};
use super::processes::{self, Lookups, UnitRows};
use crate::ops::{EmbedBackward, FromUnits, RaiseBound, ScaledAdd};
use crate::{Context, Error, Matrix, Outlet};
use qft_tensor::{Buffer, Owner, RowShard};
use std::ops::Range;

/// The largest product of two INT8 numbers.
const LARGEST_PRODUCT: f32 = 127.0 * 127.0;

/// The sum of a gradient's shares, by blocks of rows.
pub(super) struct ShareSum<'a> {
    ctx: &'a Context<'a>,
    shares: &'a [PendingGradient],
    kind: Kind,
    /// The rows of the matrix that this process updates, and the first that the shares are of.
    shard: RowShard,
    first_row: usize,
}

enum Kind {
    /// There is one share.
    Single,
    /// By whole numbers: bounds f32 `[N]`, and a block of sums.
    Units { bound: Buffer<f32>, sum: Buffer<i32> },
    /// One after the other, each in this block before it is added.
    Ordered(Buffer<f32>),
}

impl<'a> ShareSum<'a> {
    /// Of `shares`, which are those of this process, of the gradient of `rows` of `matrix`; `block` rows at a time.
    pub(super) fn new(
        ctx: &'a Context<'a>,
        matrix: &Matrix,
        rows: &Range<usize>,
        block: usize,
        shares: &'a [PendingGradient],
    ) -> Result<Self, Error> {
        let (shard, first_row) = (matrix.shard(ctx.ops.communicator()), rows.start);
        let (rows, cols) = (rows.len(), matrix.cols());
        if ctx.micro_batches == 1 {
            return Ok(Self { ctx, shares, kind: Kind::Single, shard, first_row });
        }
        let (ops, len, owner) = (ctx.ops, block * cols, Owner::Gradients);
        let integers = shares.iter().all(|share| share.scale().is_some());
        let kind = if integers {
            let mut bound = Buffer::zeros(ops, owner, "bounds of a gradient", rows)?;
            for share in shares {
                let Some(scale) = share.scale() else { continue };
                let factor = LARGEST_PRODUCT * share.tokens() as f32;
                ops.raise_bound(RaiseBound { scale, factor, bound: &mut bound })?;
            }
            processes::max(ops, &mut bound)?;
            Kind::Units { bound, sum: Buffer::alloc(ops, owner, "sum of gradients", len)? }
        } else {
            Kind::Ordered(Buffer::alloc(ops, owner, "share of a gradient", len)?)
        };
        Ok(Self { ctx, shares, kind, shard, first_row })
    }

    /// Hands rows `part` of the sum of `matrix`'s gradient to the sink, with what `lookups` bring; where other processes have
    /// shares in them, later. `grad` has room for them, f32 `[part.len(), K]`.
    pub(super) fn hand_over(
        &mut self,
        matrix: &mut Matrix,
        part: Range<usize>,
        grad: &mut Buffer<f32>,
        lookups: Lookups<'_>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Error> {
        let (ops, cols) = (self.ctx.ops, matrix.cols());
        let rows = self.first_row + part.start..self.first_row + part.end;
        match &mut self.kind {
            Kind::Units { bound, sum } if ops.communicator().size() > 1 => {
                add_units(self.ctx, self.shares, (bound, sum), part.clone())?;
                if processes::is_idle(ops, self.ctx.micro_batches) {
                    sum.fill_zero(ops)?;
                }
                let mut own = Buffer::alloc(ops, Owner::Gradients, "bounds of rows", part.len())?;
                own.copy_from(ops, 0, bound, part)?;
                let (id, shard) = (matrix.id, self.shard);
                let late = UnitRows { id, rows, cols, shard, units: sum, bound: own };
                return outlet.late.start(self.ctx, late);
            }
            Kind::Units { bound, sum } => {
                add_units(self.ctx, self.shares, (bound, sum), part.clone())?;
                let (bound, count) = (bound.span(part)?, self.ctx.micro_batches as u32);
                ops.from_units(FromUnits { sum, bound, count, cols, values: grad })?;
            }
            Kind::Single => {
                for share in self.shares {
                    share.multiply(self.ctx, part.clone(), GradientOut::Floats(grad))?;
                }
            }
            Kind::Ordered(block) => {
                add_in_order(self.ctx, self.shares, block, part, cols, grad)?;
            }
        }
        for (ids, dy) in lookups {
            let grad = grad.mat_mut(rows.len(), cols)?;
            ops.embed_backward(EmbedBackward { ids, dy, rows: rows.clone(), grad })?;
        }
        outlet.sink.matrix_rows(matrix, rows, grad)
    }
}

/// Sets the start of `sum` to rows `part` of this process's shares in whole numbers.
fn add_units(
    ctx: &Context<'_>,
    shares: &[PendingGradient],
    (bound, sum): (&Buffer<f32>, &mut Buffer<i32>),
    part: Range<usize>,
) -> Result<(), Error> {
    let (bound, count) = (bound.span(part.clone())?, ctx.micro_batches as u32);
    for (i, share) in shares.iter().enumerate() {
        let accumulate = i > 0;
        let out = GradientOut::Units { sum: &mut *sum, bound, count, accumulate };
        share.multiply(ctx, part.clone(), out)?;
    }
    Ok(())
}

/// Sets the start of `grad` to rows `part` of the sum of all shares, one after the other; `block` is room for one.
fn add_in_order(
    ctx: &Context<'_>,
    shares: &[PendingGradient],
    block: &mut Buffer<f32>,
    part: Range<usize>,
    cols: usize,
    grad: &mut Buffer<f32>,
) -> Result<(), Error> {
    for number in 0..ctx.micro_batches {
        let out = if number == 0 { &mut *grad } else { &mut *block };
        if let Some(own) = shares.iter().find(|own| own.micro_batch() == number) {
            own.multiply(ctx, part.clone(), GradientOut::Floats(out))?;
        }
        processes::hand_out(ctx.ops, out, part.len() * cols, (number, ctx.micro_batches))?;
        if number > 0 {
            ctx.ops.scaled_add(ScaledAdd { src: block, scale: 1.0, dst: grad })?;
        }
    }
    Ok(())
}
