//! The attention of a block: queries, keys and values, turned by their positions, and an output projection.

use super::SAVED;
use super::head_norm::{self, SavedHeadNorm};
use super::linear::{Flush, PendingMatrix};
use crate::geometry::{Layer, Rotation};
use crate::params::AttentionParams;
use qft_autograd::layers::linear;
use qft_autograd::layers::pending::PendingVector;
use qft_autograd::ops::{
    AttentionBackward, AttentionDecode, AttentionForward, Operands, Rope, Segments,
};
use qft_autograd::{Activations, Compute, Error, InputFormat, Matrix, Vector};
use qft_tensor::{Buffer, Owner};
use std::sync::Arc;

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub(super) struct SavedAttention {
    projected: Projected,
    lse: Buffer<f32>,
    output: AttentionOutput,
}

/// Queries, keys and values as attention reads them.
#[derive(Debug)]
struct Projected {
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    q_norm: Option<SavedHeadNorm>,
    k_norm: Option<SavedHeadNorm>,
}

impl SavedAttention {
    /// The input of the last product.
    pub(super) fn output(&self) -> &Activations {
        self.output.activations()
    }
}

/// Keys and values of the tokens that a block has seen, f32 `[capacity, G D]` each.
#[derive(Debug)]
pub(crate) struct KeyValueCache {
    pub(crate) k: Buffer<f32>,
    pub(crate) v: Buffer<f32>,
}

/// New tokens of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Tokens of it that are in the cache.
    pub(crate) past: usize,
    /// New ones.
    pub(crate) new: usize,
}

/// The output of attention is read twice: in float by its own backward pass, and by the output projection.
#[derive(Debug)]
pub(super) enum AttentionOutput {
    Same(Arc<Activations>),
    Both { float: Buffer<f32>, input: Arc<Activations> },
}

impl AttentionOutput {
    pub(super) fn activations(&self) -> &Arc<Activations> {
        match self {
            Self::Same(x) | Self::Both { input: x, .. } => x,
        }
    }

    fn float(&self) -> Result<&Buffer<f32>, Error> {
        match self {
            Self::Both { float, .. } => Ok(float),
            Self::Same(x) => match &**x {
                Activations::Float { data, .. } => Ok(data),
                Activations::Int8(_) => {
                    Err(Error::WrongSaved { layer: "attention", what: "float output was dropped" })
                }
            },
        }
    }
}

impl AttentionParams<Matrix, Vector> {
    /// All but the last product, for `input` `[T, C]`.
    pub(super) fn forward(
        &self,
        layer: Layer<'_>,
        segments: &Segments,
        input: &Activations,
    ) -> Result<SavedAttention, Error> {
        let (ctx, heads) = (layer.ctx, layer.geometry.heads);
        let projected = self.project(layer, input)?;
        let Projected { q, k, v, .. } = &projected;
        let tokens = input.shape().0;
        let mut lse = Buffer::alloc(ctx.ops, SAVED, "attention lse", tokens * heads.query)?;
        let mut out = Buffer::alloc(ctx.ops, SAVED, "attention output", q.len())?;
        ctx.ops.attention_forward(AttentionForward {
            q,
            k,
            v,
            segments,
            heads,
            operands: Operands::beside(ctx.compute.forward, heads.size),
            lse: &mut lse,
            out: &mut out,
        })?;
        Ok(SavedAttention { projected, lse, output: self.output(layer, out)? })
    }

    /// All but the last product, for the new tokens of some texts, one text behind the other in `input`; each text has its
    /// own cache.
    pub(super) fn decode(
        &self,
        layer: Layer<'_>,
        input: &Activations,
        texts: &mut [(Reading, &mut KeyValueCache)],
    ) -> Result<AttentionOutput, Error> {
        let (ops, heads) = (layer.ctx.ops, layer.geometry.heads);
        let Projected { q, k, v, .. } = self.project(layer, input)?;
        let mut out = Buffer::alloc(ops, SAVED, "attention output", q.len())?;
        let (width, channels) = (heads.key_value * heads.size, heads.query * heads.size);
        let alone = texts.len() == 1;
        let mut first = 0;
        for (Reading { past, new }, cache) in texts {
            let rows = first..first + *new;
            let keys = rows.start * width..rows.end * width;
            cache.k.copy_from(ops, *past * width, &k, keys.clone())?;
            cache.v.copy_from(ops, *past * width, &v, keys)?;
            let (k, v, past) = (&cache.k, &cache.v, *past);
            if alone {
                ops.attention_decode(AttentionDecode { q: &q, k, v, past, heads, out: &mut out })?;
            } else {
                let part = rows.start * channels..rows.end * channels;
                let own = |name| Buffer::alloc(ops, Owner::Workspace, name, part.len());
                let (mut own_q, mut own_out) = (own("q of a text")?, own("output of a text")?);
                own_q.copy_from(ops, 0, &q, part.clone())?;
                let (q, out_part) = (&own_q, &mut own_out);
                ops.attention_decode(AttentionDecode { q, k, v, past, heads, out: out_part })?;
                out.copy_from(ops, part.start, &own_out, 0..own_out.len())?;
            }
            first = rows.end;
        }
        self.output(layer, out)
    }

    /// Queries, keys and values; queries and keys normed and turned by their positions, as the model has it.
    fn project(&self, layer: Layer<'_>, input: &Activations) -> Result<Projected, Error> {
        let ctx = layer.ctx;
        let q = self.q.project(ctx, input, "q")?;
        let k = self.k.project(ctx, input, "k")?;
        let v = self.v.project(ctx, input, "v")?;
        let (mut q, q_norm) = head_norm::forward(layer, self.q_norm.as_ref(), q)?;
        let (mut k, k_norm) = head_norm::forward(layer, self.k_norm.as_ref(), k)?;
        turn(layer, &mut q, &mut k, false)?;
        Ok(Projected { q, k, v, q_norm, k_norm })
    }

    /// The output of attention `[T, H D]` in the format of the output projection.
    fn output(&self, layer: Layer<'_>, out: Buffer<f32>) -> Result<AttentionOutput, Error> {
        let ctx = layer.ctx;
        let cols = self.o.weight.cols();
        let rows = out.len() / cols;
        let format = self.o.weight.input(ctx.compute);
        if format == (InputFormat { compute: Compute::Float, rotated: false }) {
            let same = Activations::Float { data: out, rows, cols };
            return Ok(AttentionOutput::Same(Arc::new(same)));
        }
        let input = Activations::of(ctx.ops, format, "attention output", &out, (rows, cols))?;
        Ok(AttentionOutput::Both { float: out, input: Arc::new(input) })
    }

    /// The gradient of `input`, f32 `[T, C]`, from that of the output, `dy` f32 `[T, C]`.
    pub(super) fn backward(
        &mut self,
        layer: Layer<'_>,
        segments: &Segments,
        (input, saved): (Arc<Activations>, SavedAttention),
        dy: &Buffer<f32>,
        pending: &mut AttentionParams<PendingMatrix, PendingVector>,
        flush: &mut Flush<'_, '_, '_>,
    ) -> Result<Buffer<f32>, Error> {
        let (ctx, ops) = (layer.ctx, layer.ctx.ops);
        let len = saved.projected.q.len();
        let mut dout = Buffer::alloc(ops, Owner::Workspace, "attention gradient", len)?;
        let output = saved.output.activations();
        self.o.backward(ctx, output, dy, (&mut dout, false), &mut pending.o)?;
        linear::rotate(ctx, &self.o.weight, &mut dout)?;
        flush.linear(ctx, &mut self.o, &mut pending.o)?;
        let Projected { q: mut dq, k: mut dk, v: dv, q_norm, k_norm } =
            attention_backward(layer, segments, saved, dout)?;
        turn(layer, &mut dq, &mut dk, true)?;
        let gain = (&mut self.q_norm, &mut pending.q_norm);
        let dq = head_norm::backward(layer, gain, q_norm, dq, flush)?;
        let gain = (&mut self.k_norm, &mut pending.k_norm);
        let dk = head_norm::backward(layer, gain, k_norm, dk, flush)?;
        let mut dinput = Buffer::alloc(ops, Owner::Workspace, "normed gradient", dy.len())?;
        self.q.backward(ctx, &input, &dq, (&mut dinput, false), &mut pending.q)?;
        self.k.backward(ctx, &input, &dk, (&mut dinput, true), &mut pending.k)?;
        self.v.backward(ctx, &input, &dv, (&mut dinput, true), &mut pending.v)?;
        linear::rotate(ctx, &self.v.weight, &mut dinput)?;
        drop((dq, dk, dv, input));
        flush.linear(ctx, &mut self.q, &mut pending.q)?;
        flush.linear(ctx, &mut self.k, &mut pending.k)?;
        flush.linear(ctx, &mut self.v, &mut pending.v)?;
        Ok(dinput)
    }
}

/// Turns queries and keys by their positions, or back.
fn turn(
    layer: Layer<'_>,
    q: &mut Buffer<f32>,
    k: &mut Buffer<f32>,
    inverse: bool,
) -> Result<(), Error> {
    let Some(Rotation { inv_freq, scale }) = layer.rotation else { return Ok(()) };
    let (all, positions, size) = (layer.geometry.heads, layer.positions, layer.geometry.heads.size);
    let query_scale = scale * layer.geometry.query_scale;
    for (x, heads, scale) in [(q, all.query, query_scale), (k, all.key_value, *scale)] {
        layer.ctx.ops.rope(Rope { x, positions, inv_freq, heads, size, scale, inverse })?;
    }
    Ok(())
}

/// The gradients of queries, keys and values from that of attention's output, `dout` f32 `[T, H D]`; what their norms
/// have saved goes on.
fn attention_backward(
    layer: Layer<'_>,
    segments: &Segments,
    saved: SavedAttention,
    dout: Buffer<f32>,
) -> Result<Projected, Error> {
    let SavedAttention { projected: Projected { q, k, v, q_norm, k_norm }, lse, output } = saved;
    let (ctx, heads) = (layer.ctx, layer.geometry.heads);
    let workspace = |name, len| Buffer::alloc(ctx.ops, Owner::Workspace, name, len);
    let mut dq = workspace("q gradient", q.len())?;
    let mut dk = workspace("k gradient", k.len())?;
    let mut dv = workspace("v gradient", v.len())?;
    ctx.ops.attention_backward(AttentionBackward {
        q: &q,
        k: &k,
        v: &v,
        out: output.float()?,
        lse: &lse,
        dout: &dout,
        segments,
        heads,
        operands: Operands::beside(ctx.compute.forward, heads.size),
        dq: &mut dq,
        dk: &mut dk,
        dv: &mut dv,
    })?;
    Ok(Projected { q: dq, k: dk, v: dv, q_norm, k_norm })
}
