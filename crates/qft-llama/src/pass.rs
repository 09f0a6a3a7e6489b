//! Whole passes over a model: evaluation, and the forward and backward pass of a step.
//!
//! A step is run layer by layer: all micro-batches pass through a layer before any of them enters the next. So in the backward
//! pass each layer sees the gradient of all micro-batches before its weights are updated: the contraction axis
//! of a weight gradient is all tokens of the batch, and accumulation is exact although no gradient is kept.

mod head;

use crate::Batch;
use crate::block::{Flush, SavedBlock};
use crate::model::Model;
use crate::params::Params;
use crate::stream::{Stream, StreamFormat};
use crate::tokens::Tokens;
use head::{AtHead, head_backward, head_inputs, head_loss};
pub use qft_autograd::layers::loss_head::TargetLosses;
use qft_autograd::layers::loss_head::{HeadBatch, TiedGradient, VocabularyCut};
use qft_autograd::layers::{embedding, linear, processes, scale};
use qft_autograd::{
    Activations, Context, Error, GradientSink, LayerOps, Matrix, Outlet, Products, Stack, TensorId,
    Vector,
};
use qft_tensor::communicator::part_of;
use qft_tensor::{Buffer, Owner, Purpose, RngKey};
use serde::{Deserialize, Serialize};

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
    /// For micro-batch `micro_batch` of `micro_batches`.
    fn context<'a>(
        &self,
        ops: &'a dyn LayerOps,
        micro_batch: usize,
        micro_batches: usize,
    ) -> Context<'a> {
        let Self { compute, seed, step, .. } = *self;
        Context { ops, compute, seed, step, micro_batch, micro_batches }
    }
}

/// What a block leaves on the activation stack, for one micro-batch.
enum Kept {
    All(Box<SavedBlock>),
    Input(Stream),
}

/// The loss of some data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Mean negative log-likelihood per target token, in nats.
    pub mean: f64,
    /// Target tokens.
    pub target_tokens: usize,
    /// Those of them that the model finds the likeliest.
    pub correct_tokens: usize,
}

impl Loss {
    /// From the sum of all negative log-likelihoods.
    pub fn of_sum(sum: f64, target_tokens: usize, correct_tokens: usize) -> Self {
        Self { mean: sum / target_tokens.max(1) as f64, target_tokens, correct_tokens }
    }

    /// Of several parts together.
    pub fn of_parts(parts: &[Self]) -> Self {
        // Of one part alone it is the same to the last bit.
        if let [alone] = parts {
            return *alone;
        }
        let sum = parts.iter().map(|part| part.mean * part.target_tokens as f64).sum();
        let count = |of: fn(&Self) -> usize| parts.iter().map(of).sum();
        Self::of_sum(sum, count(|part| part.target_tokens), count(|part| part.correct_tokens))
    }

    /// Target tokens that the model finds the likeliest, as a fraction of all.
    pub fn accuracy(&self) -> f64 {
        self.correct_tokens as f64 / self.target_tokens.max(1) as f64
    }
}

/// The residual stream behind the last block, f32 `[T, C]`; nothing is kept.
fn infer<'a>(
    ops: &'a dyn LayerOps,
    model: &Model,
    options: &PassOptions,
    batch: &Batch,
) -> Result<(Context<'a>, Tokens, Buffer<f32>), Error> {
    let (ctx, tokens) = (options.context(ops, 0, 1), Tokens::new(ops, batch)?);
    let mut x = model.embed(&ctx, &tokens.ids)?;
    for (index, block) in model.params.blocks.iter().enumerate() {
        drop(Stream::round(ops, options.stream, &mut x)?);
        let layer = model.geometry.layer(&ctx, index, &tokens.positions);
        x = block.infer(layer, &tokens.segments, x)?;
    }
    Ok((ctx, tokens, x))
}

/// The losses of the targets of `batch`, in order.
pub fn evaluate(
    ops: &dyn LayerOps,
    model: &Model,
    options: &PassOptions,
    batch: &Batch,
) -> Result<TargetLosses, Error> {
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
    let (normed, _) = model.final_norm(&ctx, &x)?;
    head_logits(&ctx, model, &normed, tokens.count())
}

/// Logits of the positions of `batch` that have a target, f32 `[M, V]`, in order.
pub fn target_logits(
    ops: &dyn LayerOps,
    model: &Model,
    options: &PassOptions,
    batch: &Batch,
) -> Result<Vec<f32>, Error> {
    let (ctx, tokens, x) = infer(ops, model, options, batch)?;
    let (_, normed) = head_inputs(&ctx, model, &tokens, &x)?;
    head_logits(&ctx, model, &normed, tokens.targets.len())
}

/// The product of `rows` inputs with the head.
fn head_logits(
    ctx: &Context<'_>,
    model: &Model,
    normed: &Activations,
    rows: usize,
) -> Result<Vec<f32>, Error> {
    let head = model.head();
    let mut logits = Buffer::alloc(ctx.ops, Owner::Loss, "logits", rows * head.rows())?;
    linear::forward(ctx, head, 0..head.rows(), normed, &mut logits, false)?;
    Ok(logits.to_vec(ctx.ops)?)
}

/// Those of a step's micro-batches that this process computes.
fn own_micro_batches<'a>(
    ops: &'a dyn LayerOps,
    options: &PassOptions,
    batches: &[Batch],
) -> Result<(Vec<Context<'a>>, Vec<Tokens>), Error> {
    let (all, processes) = (batches.len(), ops.communicator());
    // What the last one has no random numbers for is refused before any work is done.
    let last = (all.saturating_sub(1), 0);
    RngKey::of_part(options.seed, options.step, 0, Purpose::WeightGradient, last)?;
    let mut own = part_of(all, processes.rank(), processes.size());
    if own.is_empty() && all > 0 {
        // It has a part in all that is exchanged, and computes what is not counted.
        own = 0..1;
    }
    let tokens = batches[own.clone()].iter().map(|batch| Tokens::new(ops, batch));
    let tokens = tokens.collect::<Result<_, _>>()?;
    Ok((own.map(|index| options.context(ops, index, all)).collect(), tokens))
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
        xs.push(model.embed(ctx, &tokens.ids)?);
    }
    for (index, block) in model.params.blocks.iter().enumerate() {
        let mut outputs = Vec::with_capacity(xs.len());
        for ((ctx, tokens), mut x) in ctxs.iter().zip(tokens).zip(xs) {
            let input = Stream::round(ctx.ops, options.stream, &mut x)?;
            let layer = model.geometry.layer(ctx, index, &tokens.positions);
            let segments = &tokens.segments;
            outputs.push(match (&mut stack, options.recompute) {
                (Some(stack), Recompute::None) => {
                    let (y, saved) = block.forward(layer, segments, x, input)?;
                    stack.push(Kept::All(Box::new(saved)));
                    y
                }
                (stack, _) => {
                    match stack {
                        Some(stack) => stack.push(Kept::Input(input)),
                        None => drop(input),
                    }
                    block.infer(layer, segments, x)?
                }
            });
        }
        xs = outputs;
    }
    Ok(xs)
}

/// What the head keeps of each micro-batch for its backward pass, and the losses.
type AllHeads<'a> = (Vec<AtHead>, Vec<HeadBatch<'a>>, Vec<TargetLosses>);

/// The head and the loss of each micro-batch, from its residual stream behind the last block.
fn through_head<'a>(
    ctxs: &[Context<'_>],
    model: &Model,
    tokens: &'a [Tokens],
    xs: Vec<Buffer<f32>>,
    cut: VocabularyCut,
) -> Result<AllHeads<'a>, Error> {
    let (mut at_head, mut heads, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for ((ctx, tokens), x) in ctxs.iter().zip(tokens).zip(xs) {
        let (at, normed) = head_inputs(ctx, model, tokens, &x)?;
        let (head, found) = head_loss(ctx, model, tokens, normed, cut)?;
        at_head.push(at);
        heads.push(head);
        losses.push(found);
    }
    Ok((at_head, heads, losses))
}

/// Forward and backward pass over the micro-batches of one step; gradients go to `sink`.
///
/// In a job of several processes all of them call this with all micro-batches; each computes a part of them, and every sink
/// gets the gradients of all. The bits do not depend on how many processes there are.
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
) -> Result<Loss, Error> {
    let (ctxs, tokens) = own_micro_batches(ops, options, batches)?;
    let positions = batches.iter().map(Batch::target_tokens);
    let target_tokens: usize = positions.clone().sum();

    // Forward, layer by layer.
    let mut stack = Stack::new("activation");
    let xs = through_blocks(&ctxs, model, options, &tokens, Some(&mut stack))?;

    // Head and loss.
    let cut = VocabularyCut::training(positions, model.head().rows());
    let (at_head, heads, losses) = through_head(&ctxs, model, &tokens, xs, cut)?;
    let total = |of: fn(&TargetLosses) -> f64| -> Result<f64, Error> {
        let own: Vec<f64> = losses.iter().map(of).collect();
        Ok(processes::gather_values(ops.communicator(), &own, batches.len())?.iter().sum())
    };
    let sum = total(|losses| losses.nll.iter().sum())?;
    let correct = total(|losses| losses.correct as f64)?;
    if sum.is_nan() || sum == f64::INFINITY {
        // Before any gradient: with a sink that updates at once, nothing has changed yet.
        return Err(Error::LossNotFinite { sum });
    }
    let mut tied = TiedGradient::default();
    let mut outlet = Outlet::new(sink);
    let mut dxs = head_backward(
        &ctxs,
        model,
        &tokens,
        at_head,
        heads,
        target_tokens,
        &mut tied,
        &mut outlet,
    )?;

    let kept = (&tokens[..], stack);
    backward_through_blocks(&ctxs, model, kept, &mut dxs, &mut outlet)?;
    update_embedding(&ctxs, model, batches, dxs, tied, &mut outlet)?;
    settle_all_but(&[], ops, &mut model.params)?;
    Ok(Loss::of_sum(sum, target_tokens, correct as usize))
}

/// The backward pass through the blocks, from the last to the first; micro-batches in reverse, as they lie on the stack. `dxs`
/// are the gradients of their residual streams, behind the last block and then before the first.
fn backward_through_blocks(
    ctxs: &[Context<'_>],
    model: &mut Model,
    (tokens, mut stack): (&[Tokens], Stack<Kept>),
    dxs: &mut [Buffer<f32>],
    outlet: &mut Outlet<'_>,
) -> Result<(), Error> {
    let Some(ctx) = ctxs.first() else { return Ok(()) };
    let Model { params, geometry, .. } = model;
    for index in (0..params.blocks.len()).rev() {
        let (mut pending, keep) = (params.blocks[index].pending(), outlet.late.len());
        let (block, mut behind) = params.block_and_behind(index);
        for i in (0..ctxs.len()).rev() {
            let layer = geometry.layer(&ctxs[i], index, &tokens[i].positions);
            let segments = &tokens[i].segments;
            let saved = match stack.pop()? {
                Kept::All(saved) => *saved,
                Kept::Input(input) => {
                    let x = input.to_float(ctx.ops)?;
                    block.rebuild(layer, segments, x, input)?
                }
            };
            let mut flush = if i == 0 {
                // For each block of rows that sets out, the oldest of what is behind arrives.
                Flush::To { outlet, behind: &mut behind, keep }
            } else {
                Flush::Later
            };
            block.backward(layer, segments, saved, &mut dxs[i], &mut pending, &mut flush)?;
        }
        // The exchanges of this block go on during the next, and those of its updates during the one after.
        outlet.finish_among(ctx, &mut behind, 0)?;
        let updating: Vec<_> = behind.into_iter().map(|matrix| matrix.id).collect();
        settle_all_but(&updating, ctx.ops, params)?;
    }
    outlet.finish_among(ctx, &mut params.as_mut().matrices(), 0)?;
    if outlet.late.is_empty() {
        Ok(())
    } else {
        Err(Error::WrongSaved { layer: "model", what: "a gradient of no matrix" })
    }
}

/// Takes over what other processes have made of their rows, but of these matrices.
fn settle_all_but(
    these: &[TensorId],
    ops: &dyn LayerOps,
    params: &mut Params<Matrix, Vector>,
) -> Result<(), Error> {
    if ops.communicator().size() == 1 {
        return Ok(());
    }
    let mut others = params.as_mut().matrices();
    others.retain(|matrix| !these.contains(&matrix.id));
    others.into_iter().try_for_each(|matrix| processes::settle(ops, matrix, 0))
}

/// The end of the backward pass: the gradient of the embedding, from those of the residual streams before the first block,
/// `dxs`, and, if it is the head as well, from there.
fn update_embedding(
    ctxs: &[Context<'_>],
    model: &mut Model,
    batches: &[Batch],
    dxs: Vec<Buffer<f32>>,
    tied: TiedGradient,
    outlet: &mut Outlet<'_>,
) -> Result<(), Error> {
    let Some(ctx) = ctxs.first() else { return Ok(()) };
    let (ops, factor) = (ctx.ops, model.config.multipliers.embedding);
    let dxs = ctxs.iter().zip(dxs).map(|(ctx, dx)| {
        let mut dx = scale::scaled(ctx, dx, factor)?;
        linear::rotate(ctx, &model.params.embedding, &mut dx)?;
        Ok(dx)
    });
    let dxs = dxs.collect::<Result<Vec<_>, Error>>()?;
    let channels = model.params.norm.data.len();
    let lens: Vec<_> = batches.iter().map(|batch| batch.tokens() * channels).collect();
    let dxs = processes::gather_buffers(ops, dxs, &lens, "residual gradient")?;
    let ids = batches.iter().map(|b| Buffer::from_host(ops, Owner::Data, "token ids", &b.ids));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let lookups: Vec<_> = ids.iter().zip(&dxs).collect();
    let table = &mut model.params.embedding;
    match model.params.head {
        None => tied.flush(ctx, table, &lookups, outlet),
        Some(_) => embedding::backward(ctx, table, &lookups, &mut *outlet.sink),
    }
}
