//! Whole passes over a model: evaluation, and the forward and backward pass of a step.
//!
//! A step is run layer by layer: all micro-batches pass through a layer before any of them enters the next. So in the backward
//! pass each layer sees the gradient of all micro-batches before its weights are updated: the contraction axis
//! of a weight gradient is all tokens of the batch, and accumulation is exact although no gradient is kept.

use crate::block::{PendingBlock, SavedBlock};
use crate::model::Model;
use crate::{Batch, IGNORE};
use half::bf16;
use qft_autograd::layers::loss_head::{self, HeadBatch, HeadGradient, TiedGradient, VocabularyCut};
use qft_autograd::layers::rmsnorm::{self, PendingGain};
use qft_autograd::layers::{embedding, linear};
use qft_autograd::ops::{FromBf16, GatherRows, ScatterRows, ToBf16};
use qft_autograd::{
    Activations, Context, Error, GradientSink, Heads, LayerOps, Products, Segments, Stack,
};
use qft_tensor::{Buffer, Owner, Purpose, RngKey};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The format of the residual stream between blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamFormat {
    /// f32: for the float reference.
    F32,
    /// Rounded to bf16 at each block's border: halves what the backward pass keeps.
    Bf16,
}

/// What the backward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// All that it needs.
    None,
    /// The input of each block; the rest is computed again, to the same bits.
    Block,
}

/// How a pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassOptions {
    /// Numbers of the products of linear layers.
    pub compute: Products,
    /// What is kept.
    pub recompute: Recompute,
    /// Residual stream.
    pub stream: StreamFormat,
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step.
    pub step: u32,
}

impl PassOptions {
    fn context<'a>(&self, ops: &'a dyn LayerOps, micro_batch: usize) -> Context<'a> {
        Context { ops, compute: self.compute, seed: self.seed, step: self.step, micro_batch }
    }
}

/// What a block needs beside its parameters.
pub(crate) struct Geometry<'a> {
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    pub(crate) inv_freq: &'a Buffer<f32>,
}

/// A micro-batch on the device.
pub(crate) struct Tokens {
    pub(crate) ids: Buffer<u32>,
    pub(crate) positions: Buffer<u32>,
    pub(crate) segments: Segments,
    /// Positions that have a target, and these targets.
    index: Buffer<u32>,
    targets: Buffer<u32>,
}

impl Tokens {
    fn new(ops: &dyn LayerOps, batch: &Batch) -> Result<Self, Error> {
        let index: Vec<u32> =
            (0..batch.tokens() as u32).filter(|&i| batch.targets[i as usize] != IGNORE).collect();
        let targets: Vec<u32> = index.iter().map(|&i| batch.targets[i as usize]).collect();
        let device = ops as &dyn qft_tensor::Device;
        Ok(Self {
            ids: Buffer::from_host(device, Owner::Data, "token ids", &batch.ids)?,
            positions: Buffer::from_host(device, Owner::Data, "positions", &batch.positions())?,
            segments: Segments::new(batch.segments.clone())?,
            index: Buffer::from_host(device, Owner::Data, "target positions", &index)?,
            targets: Buffer::from_host(device, Owner::Data, "targets", &targets)?,
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }
}

/// The residual stream as it is kept for the backward pass.
#[derive(Debug)]
pub enum Stream {
    /// f32 `[T, C]`.
    F32(Buffer<f32>),
    /// bf16 `[T, C]`.
    Bf16(Buffer<bf16>),
}

impl Stream {
    /// Rounds `x` in place to the format, so that what is kept is what goes on; returns a copy.
    pub(crate) fn round(
        ops: &dyn LayerOps,
        format: StreamFormat,
        x: &mut Buffer<f32>,
    ) -> Result<Self, Error> {
        match format {
            StreamFormat::F32 => {
                let mut copy = Buffer::alloc(ops, Owner::Activations, "block input", x.len())?;
                copy.copy_from(ops, 0, x, 0..x.len())?;
                Ok(Self::F32(copy))
            }
            StreamFormat::Bf16 => {
                let mut half = Buffer::alloc(ops, Owner::Activations, "block input", x.len())?;
                ops.to_bf16(ToBf16 { src: x, dst: &mut half })?;
                ops.from_bf16(FromBf16 { src: &half, dst: x })?;
                Ok(Self::Bf16(half))
            }
        }
    }

    /// The values as f32, in a buffer of their own.
    pub(crate) fn to_float(&self, ops: &dyn LayerOps) -> Result<Buffer<f32>, Error> {
        let len = match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
        };
        let mut out = Buffer::alloc(ops, Owner::Activations, "residual stream", len)?;
        match self {
            Self::F32(x) => out.copy_from(ops, 0, x, 0..len)?,
            Self::Bf16(half) => ops.from_bf16(FromBf16 { src: half, dst: &mut out })?,
        }
        Ok(out)
    }

    /// The values as f32.
    pub(crate) fn into_float(self, ops: &dyn LayerOps) -> Result<Buffer<f32>, Error> {
        match self {
            Self::F32(x) => Ok(x),
            half @ Self::Bf16(_) => half.to_float(ops),
        }
    }
}

/// What a block leaves on the activation stack, for one micro-batch.
enum Kept {
    All(Box<SavedBlock>),
    Input(Stream),
}

/// The loss of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepLoss {
    /// Mean negative log-likelihood per target token, in nats.
    pub mean: f64,
    /// Target tokens.
    pub target_tokens: usize,
}

/// The residual stream behind the last block, f32 `[T, C]`; nothing is kept.
fn infer<'a>(
    ops: &'a dyn LayerOps,
    model: &Model,
    options: &PassOptions,
    batch: &Batch,
) -> Result<(Context<'a>, Tokens, Buffer<f32>), Error> {
    let (ctx, tokens) = (options.context(ops, 0), Tokens::new(ops, batch)?);
    let mut x = embedding::forward(&ctx, &model.embedding, &tokens.ids)?;
    for block in &model.blocks {
        drop(Stream::round(ops, options.stream, &mut x)?);
        x = block.infer(&ctx, &model.geometry(), &tokens, x)?;
    }
    Ok((ctx, tokens, x))
}

/// Negative log-likelihood of each target of `batch`, in order, in nats.
pub fn evaluate(
    ops: &dyn LayerOps,
    model: &Model,
    options: &PassOptions,
    batch: &Batch,
) -> Result<Vec<f64>, Error> {
    let (ctx, tokens, x) = infer(ops, model, options, batch)?;
    let (_, normed) = head_inputs(&ctx, model, &tokens, &x)?;
    let cut = VocabularyCut::forward(tokens.targets.len(), model.head().rows());
    Ok(head_loss(&ctx, model, &tokens, normed, cut)?.1)
}

/// Logits of every position of `batch`, f32 `[T, V]`, for tests and small inputs.
pub fn logits(
    ops: &dyn LayerOps,
    model: &Model,
    options: &PassOptions,
    batch: &Batch,
) -> Result<Vec<f32>, Error> {
    let (ctx, tokens, x) = infer(ops, model, options, batch)?;
    let head = model.head();
    let format = head.input(ctx.compute);
    let (normed, _) = rmsnorm::forward(&ctx, format, &model.norm, model.eps(), &x)?;
    let mut logits = Buffer::alloc(ops, Owner::Loss, "logits", tokens.count() * head.rows())?;
    linear::forward(&ctx, head, 0..head.rows(), &normed, &mut logits, false)?;
    Ok(logits.to_vec(ops)?)
}

/// One micro-batch between the last block and the head.
struct AtHead {
    /// Residual stream at positions with a target, f32 `[M, C]`.
    x: Buffer<f32>,
    rstd: Buffer<f32>,
}

/// The input of the head: the positions with a target, normed.
fn head_inputs(
    ctx: &Context<'_>,
    model: &Model,
    tokens: &Tokens,
    x: &Buffer<f32>,
) -> Result<(AtHead, Activations), Error> {
    let channels = model.norm.data.len();
    let m = tokens.index.len();
    let mut gathered =
        Buffer::alloc(ctx.ops, Owner::Activations, "residual stream at targets", m * channels)?;
    let gather = GatherRows { src: x, index: &tokens.index, channels, out: &mut gathered };
    ctx.ops.gather_rows(gather)?;
    let format = model.head().input(ctx.compute);
    let (normed, rstd) = rmsnorm::forward(ctx, format, &model.norm, model.eps(), &gathered)?;
    Ok((AtHead { x: gathered, rstd }, normed))
}

fn head_loss<'a>(
    ctx: &Context<'_>,
    model: &Model,
    tokens: &'a Tokens,
    normed: Activations,
    cut: VocabularyCut,
) -> Result<(HeadBatch<'a>, Vec<f64>), Error> {
    HeadBatch::forward(ctx, model.head(), Arc::new(normed), &tokens.targets, cut)
}

fn micro_batches<'a>(
    ops: &'a dyn LayerOps,
    options: &PassOptions,
    batches: &[Batch],
) -> Result<(Vec<Context<'a>>, Vec<Tokens>), Error> {
    // What the last one has no random numbers for is refused before any work is done.
    let last = (batches.len().saturating_sub(1), 0);
    RngKey::of_part(options.seed, options.step, 0, Purpose::WeightGradient, last)?;
    let tokens = batches.iter().map(|batch| Tokens::new(ops, batch)).collect::<Result<_, _>>()?;
    Ok(((0..batches.len()).map(|index| options.context(ops, index)).collect(), tokens))
}

/// The residual stream of each micro-batch behind the last block, layer by layer. What the backward pass needs goes
/// to `stack`, if one is given.
fn through_blocks(
    ctxs: &[Context<'_>],
    model: &Model,
    options: &PassOptions,
    tokens: &[Tokens],
    mut stack: Option<&mut Stack<Kept>>,
) -> Result<Vec<Buffer<f32>>, Error> {
    let mut xs = Vec::with_capacity(tokens.len());
    for (ctx, tokens) in ctxs.iter().zip(tokens) {
        xs.push(embedding::forward(ctx, &model.embedding, &tokens.ids)?);
    }
    for block in &model.blocks {
        let geometry = model.geometry();
        let mut outputs = Vec::with_capacity(xs.len());
        for ((ctx, tokens), mut x) in ctxs.iter().zip(tokens).zip(xs) {
            let input = Stream::round(ctx.ops, options.stream, &mut x)?;
            outputs.push(match (&mut stack, options.recompute) {
                (Some(stack), Recompute::None) => {
                    let (y, saved) = block.forward(ctx, &geometry, tokens, x, input)?;
                    stack.push(Kept::All(Box::new(saved)));
                    y
                }
                (stack, _) => {
                    match stack {
                        Some(stack) => stack.push(Kept::Input(input)),
                        None => drop(input),
                    }
                    block.infer(ctx, &geometry, tokens, x)?
                }
            });
        }
        xs = outputs;
    }
    Ok(xs)
}

/// Forward and backward pass over the micro-batches of one step; gradients go to `sink`.
///
/// The loss is the mean over all targets of all micro-batches, so its gradient does not depend on how a batch
/// is cut. With a sink that updates at once, the model is the updated one on return.
///
/// Errors: [`Error::LossNotFinite`], or more than [`qft_tensor::MAX_MICRO_BATCHES`], before any gradient reaches the
/// sink.
pub fn train_step(
    ops: &dyn LayerOps,
    model: &mut Model,
    options: &PassOptions,
    batches: &[Batch],
    sink: &mut dyn GradientSink,
) -> Result<StepLoss, Error> {
    let (ctxs, tokens) = micro_batches(ops, options, batches)?;
    let target_tokens: usize = tokens.iter().map(|t| t.targets.len()).sum();

    // Forward, layer by layer.
    let mut stack = Stack::new("activation");
    let xs = through_blocks(&ctxs, model, options, &tokens, Some(&mut stack))?;

    // Head and loss.
    let positions = tokens.iter().map(|tokens| tokens.targets.len());
    let cut = VocabularyCut::training(positions, model.head().rows());
    let (mut at_head, mut heads, mut sum) = (Vec::new(), Vec::new(), 0.0);
    for ((ctx, tokens), x) in ctxs.iter().zip(&tokens).zip(xs) {
        let (at, normed) = head_inputs(ctx, model, tokens, &x)?;
        let (head, nll) = head_loss(ctx, model, tokens, normed, cut)?;
        at_head.push(at);
        heads.push(head);
        sum += nll.iter().sum::<f64>();
    }
    if sum.is_nan() || sum == f64::INFINITY {
        // Before any gradient: with a sink that updates at once, nothing has changed yet.
        return Err(Error::LossNotFinite { sum });
    }
    let mut tied = TiedGradient::default();
    let mut dxs =
        head_backward(&ctxs, model, &tokens, at_head, heads, target_tokens, &mut tied, sink)?;

    // Blocks, from the last to the first; micro-batches in reverse, as they lie on the stack.
    let Model { blocks, inv_freq, config, .. } = model;
    for block in blocks.iter_mut().rev() {
        let geometry = Model::geometry_of(config, inv_freq);
        let mut pending = PendingBlock::default();
        for i in (0..ctxs.len()).rev() {
            let (ctx, tokens) = (&ctxs[i], &tokens[i]);
            let saved = match stack.pop()? {
                Kept::All(saved) => *saved,
                Kept::Input(input) => {
                    let x = input.to_float(ops)?;
                    block.rebuild(ctx, &geometry, tokens, x, input)?
                }
            };
            let last = if i == 0 { Some(&mut *sink) } else { None };
            block.backward(ctx, &geometry, tokens, saved, &mut dxs[i], &mut pending, last)?;
        }
    }

    // Embedding.
    for (ctx, dx) in ctxs.iter().zip(&mut dxs) {
        linear::rotate(ctx, &model.embedding, dx)?;
    }
    let lookups: Vec<_> = tokens.iter().map(|t| &t.ids).zip(&dxs).collect();
    if let Some(ctx) = ctxs.first() {
        if model.head.is_none() {
            tied.flush(ctx, &mut model.embedding, &lookups, sink)?;
        } else {
            embedding::backward(ctx, &mut model.embedding, &lookups, sink)?;
        }
    }
    Ok(StepLoss { mean: sum / target_tokens.max(1) as f64, target_tokens })
}

/// Backward through loss, head and final norm: the gradient of each micro-batch's residual stream `[T, C]`.
#[expect(
    clippy::too_many_arguments,
    reason = "no two of them belong together, and there is one caller"
)]
fn head_backward(
    ctxs: &[Context<'_>],
    model: &mut Model,
    tokens: &[Tokens],
    at_head: Vec<AtHead>,
    mut heads: Vec<HeadBatch<'_>>,
    target_tokens: usize,
    tied: &mut TiedGradient,
    sink: &mut dyn GradientSink,
) -> Result<Vec<Buffer<f32>>, Error> {
    let channels = model.norm.data.len();
    let mut dnormed = Vec::with_capacity(heads.len());
    for (ctx, head) in ctxs.iter().zip(&heads) {
        let len = head.targets.len() * channels;
        dnormed.push(Buffer::alloc(ctx.ops, Owner::Workspace, "normed gradient", len)?);
    }
    let weight = 1.0 / target_tokens.max(1) as f32;
    match &mut model.head {
        Some(head) => {
            let gradient = HeadGradient::Flush(sink);
            loss_head::backward(ctxs, head, &mut heads, weight, &mut dnormed, gradient)?;
        }
        None => {
            let gradient = HeadGradient::Tied(tied);
            let head = &mut model.embedding;
            loss_head::backward(ctxs, head, &mut heads, weight, &mut dnormed, gradient)?;
        }
    }
    drop(heads);
    for (ctx, dnormed) in ctxs.iter().zip(&mut dnormed) {
        linear::rotate(ctx, model.head(), dnormed)?;
    }
    let (mut pending, mut dxs) = (PendingGain::default(), Vec::with_capacity(ctxs.len()));
    for (((ctx, tokens), at), dnormed) in ctxs.iter().zip(tokens).zip(at_head).zip(dnormed) {
        let mut src = Buffer::zeros(ctx.ops, Owner::Workspace, "gradient at targets", at.x.len())?;
        let input = (&at.x, &at.rstd);
        pending.backward(ctx, &model.norm, input, &dnormed, &mut src)?;
        drop(dnormed);
        let len = tokens.count() * channels;
        let mut dx = Buffer::alloc(ctx.ops, Owner::Activations, "residual gradient", len)?;
        let scatter = ScatterRows { src: &src, index: &tokens.index, channels, dst: &mut dx };
        ctx.ops.scatter_rows(scatter)?;
        dxs.push(dx);
    }
    if !ctxs.is_empty() {
        pending.flush(&mut model.norm, sink)?;
    }
    Ok(dxs)
}
