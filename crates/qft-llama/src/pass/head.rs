//! The end of a model: the final norm and the head at the positions that have a target, and the loss.

use crate::model::Model;
use crate::tokens::Tokens;
use qft_autograd::layers::loss_head::{
    self, HeadBatch, HeadGradient, TargetLosses, TiedGradient, VocabularyCut,
};
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::layers::{linear, rmsnorm, scale};
use qft_autograd::ops::{GatherRows, ScatterRows};
use qft_autograd::{Activations, Context, Error, Outlet};
use qft_tensor::{Buffer, Owner};
use std::sync::Arc;

/// One micro-batch between the last block and the head.
pub(super) struct AtHead {
    /// Residual stream at positions with a target, f32 `[M, C]`.
    x: Buffer<f32>,
    rstd: Buffer<f32>,
}

/// The input of the head: the positions with a target, normed.
pub(super) fn head_inputs(
    ctx: &Context<'_>,
    model: &Model,
    tokens: &Tokens,
    x: &Buffer<f32>,
) -> Result<(AtHead, Activations), Error> {
    let channels = model.params.norm.data.len();
    let m = tokens.index.len();
    let mut gathered =
        Buffer::alloc(ctx.ops, Owner::Activations, "residual stream at targets", m * channels)?;
    let gather = GatherRows { src: x, index: &tokens.index, channels, out: &mut gathered };
    ctx.ops.gather_rows(gather)?;
    let (normed, rstd) = model.final_norm(ctx, &gathered)?;
    Ok((AtHead { x: gathered, rstd }, normed))
}

pub(super) fn head_loss<'a>(
    ctx: &Context<'_>,
    model: &Model,
    tokens: &'a Tokens,
    normed: Activations,
    cut: VocabularyCut,
) -> Result<(HeadBatch<'a>, TargetLosses), Error> {
    HeadBatch::forward(ctx, model.head(), Arc::new(normed), &tokens.targets, cut)
}

/// Backward through loss, head and final norm: the gradient of each micro-batch's residual stream `[T, C]`.
#[expect(
    clippy::too_many_arguments,
    reason = "no two of them belong together, and there is one caller"
)]
pub(super) fn head_backward(
    ctxs: &[Context<'_>],
    model: &mut Model,
    tokens: &[Tokens],
    at_head: Vec<AtHead>,
    mut heads: Vec<HeadBatch<'_>>,
    target_tokens: usize,
    tied: &mut TiedGradient,
    outlet: &mut Outlet<'_>,
) -> Result<Vec<Buffer<f32>>, Error> {
    let channels = model.params.norm.data.len();
    let mut dnormed = Vec::with_capacity(heads.len());
    for (ctx, head) in ctxs.iter().zip(&heads) {
        let len = head.targets.len() * channels;
        dnormed.push(Buffer::alloc(ctx.ops, Owner::Workspace, "normed gradient", len)?);
    }
    let weight = 1.0 / target_tokens.max(1) as f32;
    match &mut model.params.head {
        Some(head) => {
            let gradient = HeadGradient::Flush(outlet);
            loss_head::backward(ctxs, head, &mut heads, weight, &mut dnormed, gradient)?;
        }
        None => {
            let gradient = HeadGradient::Tied(tied);
            let head = &mut model.params.embedding;
            loss_head::backward(ctxs, head, &mut heads, weight, &mut dnormed, gradient)?;
        }
    }
    drop(heads);
    for (ctx, dnormed) in ctxs.iter().zip(&mut dnormed) {
        linear::rotate(ctx, model.head(), dnormed)?;
    }
    let factor = 1.0 / model.config.multipliers.logits;
    let (mut pending, mut dxs) = (PendingVector::default(), Vec::with_capacity(ctxs.len()));
    for (((ctx, tokens), at), dnormed) in ctxs.iter().zip(tokens).zip(at_head).zip(dnormed) {
        let mut src = Buffer::zeros(ctx.ops, Owner::Workspace, "gradient at targets", at.x.len())?;
        let (dnormed, input) = (scale::scaled(ctx, dnormed, factor)?, (&at.x, &at.rstd));
        rmsnorm::backward(ctx, &model.params.norm, input, &dnormed, &mut src, &mut pending)?;
        drop(dnormed);
        let len = tokens.count() * channels;
        let mut dx = Buffer::alloc(ctx.ops, Owner::Activations, "residual gradient", len)?;
        let scatter = ScatterRows { src: &src, index: &tokens.index, channels, dst: &mut dx };
        ctx.ops.scatter_rows(scatter)?;
        dxs.push(dx);
    }
    if let Some(ctx) = ctxs.first() {
        pending.flush(ctx, &mut model.params.norm, &mut *outlet.sink)?;
    }
    Ok(dxs)
}
