//! The attention of a block: queries, keys and values, turned by their positions, and an output projection.

use super::SAVED;
use super::linear::{Flush, PendingMatrix};
use crate::geometry::Layer;
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
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    lse: Buffer<f32>,
    output: AttentionOutput,
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
        let [q, k, v] = self.project(layer, input)?;
        let tokens = input.shape().0;
        let mut lse = Buffer::alloc(ctx.ops, SAVED, "attention lse", tokens * heads.query)?;
        let mut out = Buffer::alloc(ctx.ops, SAVED, "attention output", q.len())?;
        ctx.ops.attention_forward(AttentionForward {
            q: &q,
            k: &k,
            v: &v,
            segments,
            heads,
            operands: Operands::beside(ctx.compute.forward, heads.size),
            lse: &mut lse,
            out: &mut out,
        })?;
        Ok(SavedAttention { q, k, v, lse, output: self.output(layer, out)? })
    }

    /// All but the last product, for new tokens that follow the `past` tokens in the cache.
    pub(super) fn decode(
        &self,
        layer: Layer<'_>,
        input: &Activations,
        cache: &mut KeyValueCache,
        past: usize,
    ) -> Result<AttentionOutput, Error> {
        let (ops, heads) = (layer.ctx.ops, layer.geometry.heads);
        let [q, k, v] = self.project(layer, input)?;
        let width = heads.key_value * heads.size;
        cache.k.copy_from(ops, past * width, &k, 0..k.len())?;
        cache.v.copy_from(ops, past * width, &v, 0..v.len())?;
        let mut out = Buffer::alloc(ops, SAVED, "attention output", q.len())?;
        let (k, v) = (&cache.k, &cache.v);
        ops.attention_decode(AttentionDecode { q: &q, k, v, past, heads, out: &mut out })?;
        self.output(layer, out)
    }

    /// Queries, keys and values, with their positions.
    fn project(&self, layer: Layer<'_>, input: &Activations) -> Result<[Buffer<f32>; 3], Error> {
        let ctx = layer.ctx;
        let mut q = self.q.project(ctx, input, "q")?;
        let mut k = self.k.project(ctx, input, "k")?;
        let v = self.v.project(ctx, input, "v")?;
        turn(layer, &mut q, &mut k, false)?;
        Ok([q, k, v])
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
        flush: &mut Flush<'_>,
    ) -> Result<Buffer<f32>, Error> {
        let (ctx, ops) = (layer.ctx, layer.ctx.ops);
        let mut dout = Buffer::alloc(ops, Owner::Workspace, "attention gradient", saved.q.len())?;
        let output = saved.output.activations();
        self.o.backward(ctx, output, dy, (&mut dout, false), &mut pending.o)?;
        linear::rotate(ctx, &self.o.weight, &mut dout)?;
        flush.linear(ctx, &mut self.o, &mut pending.o)?;
        let [mut dq, mut dk, dv] = attention_backward(layer, segments, saved, dout)?;
        turn(layer, &mut dq, &mut dk, true)?;
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
    let (all, inv_freq, positions) =
        (layer.geometry.heads, &layer.geometry.inv_freq, layer.positions);
    let (size, scale) = (all.size, 1.0);
    for (x, heads) in [(q, all.query), (k, all.key_value)] {
        layer.ctx.ops.rope(Rope { x, positions, inv_freq, heads, size, scale, inverse })?;
    }
    Ok(())
}

/// The gradients of queries, keys and values from that of attention's output, `dout` f32 `[T, H D]`.
fn attention_backward(
    layer: Layer<'_>,
    segments: &Segments,
    saved: SavedAttention,
    dout: Buffer<f32>,
) -> Result<[Buffer<f32>; 3], Error> {
    let (ctx, heads) = (layer.ctx, layer.geometry.heads);
    let workspace = |name, len| Buffer::alloc(ctx.ops, Owner::Workspace, name, len);
    let mut dq = workspace("q gradient", saved.q.len())?;
    let mut dk = workspace("k gradient", saved.k.len())?;
    let mut dv = workspace("v gradient", saved.v.len())?;
    ctx.ops.attention_backward(AttentionBackward {
        q: &saved.q,
        k: &saved.k,
        v: &saved.v,
        out: saved.output.float()?,
        lse: &saved.lse,
        dout: &dout,
        segments,
        heads,
        operands: Operands::beside(ctx.compute.forward, heads.size),
        dq: &mut dq,
        dk: &mut dk,
        dv: &mut dv,
    })?;
    Ok([dq, dk, dv])
}
