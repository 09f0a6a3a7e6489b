//! The output head and the cross-entropy behind it, by blocks of the vocabulary.
//!
//! The forward pass computes logits block by block and keeps a running log-sum-exp; the backward pass turns each block
//! into its gradient, which at once feeds the gradient of the hidden states and the gradient of the block's rows of
//! the head. Logits `[M, V]` exist whole only where they are few; otherwise the backward pass computes them again, to
//! the same bits.
//!
//! Gradients of logits are quantized stochastically: to nearest, the many tiny ones of a token would vanish
//! beside the one of its target, which biases everything below.

use super::linear::{self, PendingGradient};
use super::processes::Lookups;
use super::share_sum::ShareSum;
use crate::activations::Activations;
use crate::ops::{LossGradient, LossStats};
use crate::{Context, Error, LayerOps, Matrix, Outlet};
use qft_tensor::{Buffer, Owner, Purpose};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Logits that exist at a time, unless a single row of the smallest block has more.
const LOGITS_ELEMENTS: usize = 2 << 20;

/// Logits of a step that are kept for the backward pass, if there are no more: 128 MiB. They save one of the head's
/// four products, which is much of a small model's step and little of a large one's.
const KEPT_ELEMENTS: usize = 32 << 20;

/// How the head goes through the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocabularyCut {
    /// Rows of a block.
    rows: usize,
    /// Whether the forward pass keeps its logits.
    keep: bool,
}

impl VocabularyCut {
    /// For a forward pass alone, over M `positions`.
    pub fn forward(positions: usize, vocab: usize) -> Self {
        let rows = LOGITS_ELEMENTS / positions.max(1);
        Self { rows: (rows / 64 * 64).clamp(256, 4096).min(vocab), keep: false }
    }

    /// For both passes over micro-batches of so many positions.
    pub fn training(positions: impl Iterator<Item = usize> + Clone, vocab: usize) -> Self {
        let all: usize = positions.clone().sum();
        let keep = all.saturating_mul(vocab) <= KEPT_ELEMENTS;
        Self { keep, ..Self::forward(positions.max().unwrap_or(0), vocab) }
    }

    fn alloc(self, ops: &dyn LayerOps, positions: usize) -> Result<Buffer<f32>, Error> {
        Ok(Buffer::alloc(ops, Owner::Loss, "logits block", positions * self.rows)?)
    }
}

/// One micro-batch at the head: positions that have a target.
#[derive(Debug)]
pub struct HeadBatch<'a> {
    /// Normed hidden states `[M, C]`.
    pub x: Arc<Activations>,
    /// Target ids `[M]`.
    pub targets: &'a Buffer<u32>,
    max: Buffer<f32>,
    sum: Buffer<f32>,
    cut: VocabularyCut,
    /// Logits that were kept, block by block.
    logits: VecDeque<Buffer<f32>>,
}

/// What a forward pass finds at the positions that have a target.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TargetLosses {
    /// Negative log-likelihood of each target, in order, in nats.
    pub nll: Vec<f64>,
    /// How many targets have the largest logit of their position, or share it.
    pub correct: usize,
}

impl<'a> HeadBatch<'a> {
    /// Forward pass; also returns the losses.
    ///
    /// Shapes: `x` `[M, C]`, `targets` u32 `[M]`, ids below the rows of `head`.
    pub fn forward(
        ctx: &Context<'_>,
        head: &Matrix,
        x: Arc<Activations>,
        targets: &'a Buffer<u32>,
        cut: VocabularyCut,
    ) -> Result<(Self, TargetLosses), Error> {
        let (ops, m) = (ctx.ops, targets.len());
        let mut max = Buffer::alloc(ops, Owner::Loss, "logit maximum", m)?;
        let mut sum = Buffer::alloc(ops, Owner::Loss, "logit sum", m)?;
        let mut target_logit = Buffer::alloc(ops, Owner::Loss, "target logit", m)?;
        let (mut kept, mut block) = (VecDeque::new(), None);
        for rows in linear::blocks(0..head.rows(), cut.rows) {
            let logits = match &mut block {
                Some(block) => block,
                none => none.insert(cut.alloc(ops, m)?),
            };
            linear::forward(ctx, head, rows.clone(), &x, logits, false)?;
            ops.loss_stats(LossStats {
                logits,
                start: rows.start,
                cols: rows.len(),
                targets,
                max: &mut max,
                sum: &mut sum,
                target_logit: &mut target_logit,
            })?;
            if cut.keep {
                kept.extend(block.take());
            }
        }
        let (maxima, sums) = (max.to_vec(ops)?, sum.to_vec(ops)?);
        let mut losses = TargetLosses::default();
        for ((&max, &sum), target) in maxima.iter().zip(&sums).zip(target_logit.to_vec(ops)?) {
            losses.nll.push(f64::from(max) + f64::from(sum).ln() - f64::from(target));
            losses.correct += usize::from(target == max);
        }
        Ok((Self { x, targets, max, sum, cut, logits: kept }, losses))
    }

    /// The gradient of one block of `logits`, and with it one block's share of `dx`.
    fn backward_block(
        &self,
        ctx: &Context<'_>,
        head: &Matrix,
        block: (usize, Range<usize>),
        weight: f32,
        logits: &mut Buffer<f32>,
        dx: &mut Buffer<f32>,
    ) -> Result<PendingGradient, Error> {
        let (index, rows) = block;
        ctx.ops.loss_gradient(LossGradient {
            logits,
            start: rows.start,
            cols: rows.len(),
            targets: self.targets,
            max: &self.max,
            sum: &self.sum,
            weight,
        })?;
        let n = rows.len();
        let rounding = ctx.stochastic(head.id, Purpose::InputGradient, index)?;
        linear::backward_input(ctx, head, rows, logits, rounding, dx, index > 0)?;
        let rounding = ctx.stochastic(head.id, Purpose::WeightGradient, index)?;
        PendingGradient::new(ctx, head, &self.x, logits, n, rounding)
    }
}

/// Gradients of a tied head that wait for those of the embedding: per block of the vocabulary, the shares of
/// all micro-batches.
#[derive(Debug, Default)]
pub struct TiedGradient(Vec<(Range<usize>, Vec<PendingGradient>)>);

/// What becomes of the gradient of the head's rows.
pub enum HeadGradient<'a, 'b> {
    /// To the sink, block by block.
    Flush(&'a mut Outlet<'b>),
    /// Kept, since the same matrix is also the embedding.
    Tied(&'a mut TiedGradient),
}

/// Backward pass of all micro-batches: sets each `dx`, f32 `[M, C]`.
///
/// `weight` is one over the number of targets of the whole batch. All micro-batches have been cut alike.
pub fn backward(
    ctxs: &[Context<'_>],
    head: &mut Matrix,
    batches: &mut [HeadBatch<'_>],
    weight: f32,
    dxs: &mut [Buffer<f32>],
    mut gradient: HeadGradient<'_, '_>,
) -> Result<(), Error> {
    let (Some(ctx), Some(&HeadBatch { cut, .. })) = (ctxs.first(), batches.first()) else {
        return Ok(());
    };
    let most = batches.iter().map(|b| b.targets.len()).max().unwrap_or(0);
    let mut block = None;
    for (index, rows) in linear::blocks(0..head.rows(), cut.rows).enumerate() {
        let mut shares = Vec::with_capacity(batches.len());
        for ((ctx, batch), dx) in ctxs.iter().zip(&mut *batches).zip(&mut *dxs) {
            let mut logits = match (batch.logits.pop_front(), block.take()) {
                (Some(kept), _) => kept,
                (None, free) => {
                    let mut logits = free.map_or_else(|| cut.alloc(ctx.ops, most), Ok)?;
                    linear::forward(ctx, head, rows.clone(), &batch.x, &mut logits, false)?;
                    logits
                }
            };
            let numbered = (index, rows.clone());
            shares.push(batch.backward_block(ctx, head, numbered, weight, &mut logits, dx)?);
            block = (!cut.keep).then_some(logits);
        }
        match &mut gradient {
            HeadGradient::Tied(kept) => kept.0.push((rows, shares)),
            HeadGradient::Flush(outlet) => flush_block(ctx, head, &rows, &shares, &[], outlet)?,
        }
    }
    Ok(())
}

/// Blocks of the head's gradient that may be on their way: one is exchanged while the next is multiplied.
const LATE_BLOCKS: usize = 2;

/// Multiplies a block's shares, adds the embedding's part, and hands the rows over.
fn flush_block(
    ctx: &Context<'_>,
    head: &mut Matrix,
    rows: &Range<usize>,
    shares: &[PendingGradient],
    lookups: Lookups<'_>,
    outlet: &mut Outlet<'_>,
) -> Result<(), Error> {
    let channels = head.cols();
    let size = linear::block_rows(channels).min(rows.len());
    let mut grad = Buffer::alloc(ctx.ops, Owner::Gradients, "gradient block", size * channels)?;
    let mut sum = ShareSum::new(ctx, head, rows, size, shares)?;
    for part in linear::blocks(0..rows.len(), size) {
        sum.hand_over(head, part, &mut grad, lookups, outlet)?;
        outlet.finish(ctx, head, lookups, LATE_BLOCKS)?;
    }
    Ok(())
}

impl TiedGradient {
    /// Adds the gradient of the embedding, exactly, and hands the sum to the sink. Nothing else may be on its way.
    pub fn flush(
        self,
        ctx: &Context<'_>,
        table: &mut Matrix,
        lookups: Lookups<'_>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Error> {
        for (rows, shares) in self.0 {
            flush_block(ctx, table, &rows, &shares, lookups, outlet)?;
        }
        outlet.finish(ctx, table, lookups, 0)
    }
}
