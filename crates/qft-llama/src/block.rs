//! One transformer block: attention and SwiGLU, each behind an RMSNorm, each added to the residual stream.

use crate::pass::{Geometry, Stream, Tokens};
use qft_autograd::layers::linear::{self, PendingGradient};
use qft_autograd::layers::rmsnorm::{self, PendingGain};
use qft_autograd::ops::{
    AttentionBackward, AttentionDecode, AttentionForward, Operands, Rope, SwigluBackward,
    SwigluForward,
};
use qft_autograd::{
    Activations, Compute, Context, Error, GradientSink, InputFormat, Matrix, Vector,
};
use qft_tensor::{Buffer, Owner};
use std::sync::Arc;

/// The parameters of a block.
#[derive(Debug)]
pub struct Block {
    /// Gain of the norm before attention `[C]`.
    pub attention_norm: Vector,
    /// Queries `[H D, C]`.
    pub q: Matrix,
    /// Keys `[G D, C]`.
    pub k: Matrix,
    /// Values `[G D, C]`.
    pub v: Matrix,
    /// Output of attention `[C, H D]`.
    pub o: Matrix,
    /// Gain of the norm before the MLP `[C]`.
    pub mlp_norm: Vector,
    /// Gate `[F, C]`.
    pub gate: Matrix,
    /// Up `[F, C]`.
    pub up: Matrix,
    /// Down `[C, F]`.
    pub down: Matrix,
}

/// What the backward pass of a block needs of its forward pass.
#[derive(Debug)]
pub struct SavedBlock {
    x: Stream,
    inner: Inner,
}

/// Everything between the input of a block and its last product.
#[derive(Debug)]
struct Inner {
    x_normed: Arc<Activations>,
    x_rstd: Buffer<f32>,
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    attention: AttentionOutput,
    lse: Buffer<f32>,
    /// Residual stream between attention and MLP.
    mid: Buffer<f32>,
    mlp: Mlp,
}

struct Qkv {
    normed: Activations,
    rstd: Buffer<f32>,
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
}

#[derive(Debug)]
struct Mlp {
    normed: Arc<Activations>,
    rstd: Buffer<f32>,
    gate: Buffer<f32>,
    up: Buffer<f32>,
    activated: Arc<Activations>,
}

/// Keys and values of the tokens that a block has seen, f32 `[capacity, G D]` each.
#[derive(Debug)]
pub(crate) struct BlockCache {
    pub(crate) k: Buffer<f32>,
    pub(crate) v: Buffer<f32>,
}

/// The output of attention is read twice: in float by its own backward pass, and by the output projection.
#[derive(Debug)]
enum AttentionOutput {
    Same(Arc<Activations>),
    Both { float: Buffer<f32>, input: Arc<Activations> },
}

impl AttentionOutput {
    fn activations(&self) -> &Arc<Activations> {
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

/// Weight gradients of a block that wait until all micro-batches have passed it.
#[derive(Debug, Default)]
pub struct PendingBlock {
    q: Vec<PendingGradient>,
    k: Vec<PendingGradient>,
    v: Vec<PendingGradient>,
    o: Vec<PendingGradient>,
    gate: Vec<PendingGradient>,
    up: Vec<PendingGradient>,
    down: Vec<PendingGradient>,
    attention_norm: PendingGain,
    mlp_norm: PendingGain,
}

const SAVED: Owner = Owner::Activations;

/// `x W^T` into a new buffer.
fn project(
    ctx: &Context<'_>,
    w: &Matrix,
    x: &Activations,
    name: &'static str,
) -> Result<Buffer<f32>, Error> {
    let mut y = Buffer::alloc(ctx.ops, SAVED, name, x.shape().0 * w.rows())?;
    linear::forward(ctx, w, 0..w.rows(), x, &mut y, false)?;
    Ok(y)
}

impl Block {
    /// The output for `x` f32 `[T, C]`; nothing is kept.
    pub(crate) fn infer(
        &self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        tokens: &Tokens,
        x: Buffer<f32>,
    ) -> Result<Buffer<f32>, Error> {
        let Inner { mlp, mid: mut y, .. } = self.inner(ctx, geometry, tokens, x)?;
        linear::forward(ctx, &self.down, 0..self.down.rows(), &mlp.activated, &mut y, true)?;
        Ok(y)
    }

    /// The output for `x` f32 `[T, C]`, and what the backward pass needs; `input` is `x` as kept.
    pub(crate) fn forward(
        &self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        tokens: &Tokens,
        x: Buffer<f32>,
        input: Stream,
    ) -> Result<(Buffer<f32>, SavedBlock), Error> {
        let saved = self.rebuild(ctx, geometry, tokens, x, input)?;
        let mut y = Buffer::alloc(ctx.ops, SAVED, "residual stream", saved.inner.mid.len())?;
        y.copy_from(ctx.ops, 0, &saved.inner.mid, 0..saved.inner.mid.len())?;
        let down = &self.down;
        linear::forward(ctx, down, 0..down.rows(), &saved.inner.mlp.activated, &mut y, true)?;
        Ok((y, saved))
    }

    /// What the backward pass needs, without the output.
    pub(crate) fn rebuild(
        &self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        tokens: &Tokens,
        x: Buffer<f32>,
        input: Stream,
    ) -> Result<SavedBlock, Error> {
        Ok(SavedBlock { x: input, inner: self.inner(ctx, geometry, tokens, x)? })
    }

    /// All of the block but its last product.
    fn inner(
        &self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        tokens: &Tokens,
        mut x: Buffer<f32>,
    ) -> Result<Inner, Error> {
        let (ops, heads) = (ctx.ops, geometry.heads);
        let Qkv { normed, rstd, q, k, v } = self.qkv(ctx, geometry, &tokens.positions, &x)?;
        let mut lse = Buffer::alloc(ops, SAVED, "attention lse", tokens.count() * heads.query)?;
        let mut out = Buffer::alloc(ops, SAVED, "attention output", q.len())?;
        ops.attention_forward(AttentionForward {
            q: &q,
            k: &k,
            v: &v,
            segments: &tokens.segments,
            heads,
            operands: Operands::beside(ctx.compute.forward, heads.size),
            lse: &mut lse,
            out: &mut out,
        })?;
        let attention = self.add_attention(ctx, out, &mut x)?;
        let mlp = self.mlp(ctx, geometry, &x)?;
        Ok(Inner { x_normed: Arc::new(normed), x_rstd: rstd, q, k, v, attention, lse, mid: x, mlp })
    }

    /// Norm, the three projections, and rotary embedding.
    fn qkv(
        &self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        positions: &Buffer<u32>,
        x: &Buffer<f32>,
    ) -> Result<Qkv, Error> {
        let (heads, format) = (geometry.heads, self.q.input(ctx.compute));
        let (normed, rstd) = rmsnorm::forward(ctx, format, &self.attention_norm, geometry.eps, x)?;
        let mut q = project(ctx, &self.q, &normed, "q")?;
        let mut k = project(ctx, &self.k, &normed, "k")?;
        let v = project(ctx, &self.v, &normed, "v")?;
        let inv_freq = geometry.inv_freq;
        for (x, heads) in [(&mut q, heads.query), (&mut k, heads.key_value)] {
            ctx.ops.rope(Rope { x, positions, inv_freq, heads, inverse: false })?;
        }
        Ok(Qkv { normed, rstd, q, k, v })
    }

    /// Adds the output projection of attention's output `[T, H D]` to the residual stream.
    fn add_attention(
        &self,
        ctx: &Context<'_>,
        out: Buffer<f32>,
        x: &mut Buffer<f32>,
    ) -> Result<AttentionOutput, Error> {
        let cols = self.o.cols();
        let rows = out.len() / cols;
        let (shape, name) = ((rows, cols), "attention output");
        let attention = match self.o.input(ctx.compute) {
            InputFormat { compute: Compute::Float, rotated: false } => {
                AttentionOutput::Same(Arc::new(Activations::Float { data: out, rows, cols }))
            }
            InputFormat { compute: Compute::Float, rotated: true } => {
                let mut data = Buffer::alloc(ctx.ops, SAVED, name, out.len())?;
                data.copy_from(ctx.ops, 0, &out, 0..out.len())?;
                linear::rotate(ctx, &self.o, &mut data)?;
                let input = Arc::new(Activations::Float { data, rows, cols });
                AttentionOutput::Both { float: out, input }
            }
            InputFormat { compute: Compute::Int8, rotated } => {
                let int8 = Activations::quantize(ctx.ops, name, &out, shape, rotated)?;
                AttentionOutput::Both { float: out, input: Arc::new(int8) }
            }
        };
        linear::forward(ctx, &self.o, 0..self.o.rows(), attention.activations(), x, true)?;
        Ok(attention)
    }

    /// Norm and MLP, all but the last product.
    fn mlp(
        &self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        mid: &Buffer<f32>,
    ) -> Result<Mlp, Error> {
        let format = self.gate.input(ctx.compute);
        let (normed, rstd) = rmsnorm::forward(ctx, format, &self.mlp_norm, geometry.eps, mid)?;
        let gate = project(ctx, &self.gate, &normed, "gate")?;
        let up = project(ctx, &self.up, &normed, "up")?;
        let rows = normed.shape().0;
        let shape = (rows, self.down.cols());
        let format = self.down.input(ctx.compute);
        let mut activated = Activations::alloc(ctx.ops, format, "activated", shape)?;
        let out = activated.out();
        ctx.ops.swiglu_forward(SwigluForward { gate: &gate, up: &up, rows, out })?;
        activated.rotate_floats(ctx.ops, format)?;
        Ok(Mlp { normed: Arc::new(normed), rstd, gate, up, activated: Arc::new(activated) })
    }

    /// The output for new tokens `x` f32 `[n, C]` that follow those in the cache; enters their keys and values.
    pub(crate) fn decode(
        &self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        positions: &Buffer<u32>,
        mut x: Buffer<f32>,
        cache: &mut BlockCache,
        past: usize,
    ) -> Result<Buffer<f32>, Error> {
        let (ops, heads) = (ctx.ops, geometry.heads);
        let Qkv { q, k, v, .. } = self.qkv(ctx, geometry, positions, &x)?;
        let width = heads.key_value * heads.size;
        cache.k.copy_from(ops, past * width, &k, 0..k.len())?;
        cache.v.copy_from(ops, past * width, &v, 0..v.len())?;
        let mut out = Buffer::alloc(ops, SAVED, "attention output", q.len())?;
        let (k, v) = (&cache.k, &cache.v);
        ops.attention_decode(AttentionDecode { q: &q, k, v, past, heads, out: &mut out })?;
        self.add_attention(ctx, out, &mut x)?;
        let mlp = self.mlp(ctx, geometry, &x)?;
        linear::forward(ctx, &self.down, 0..self.down.rows(), &mlp.activated, &mut x, true)?;
        Ok(x)
    }

    /// Backward pass over one micro-batch: `dx` f32 `[T, C]` is the gradient of the output on entry and that of
    /// the input on return. With a sink this is the last micro-batch, and every parameter is flushed as soon as
    /// its old value is needed no more.
    #[expect(
        clippy::too_many_arguments,
        reason = "no two of them belong together, and there is one caller"
    )]
    pub(crate) fn backward(
        &mut self,
        ctx: &Context<'_>,
        geometry: &Geometry<'_>,
        tokens: &Tokens,
        SavedBlock { x, inner: saved }: SavedBlock,
        dx: &mut Buffer<f32>,
        pending: &mut PendingBlock,
        mut sink: Option<&mut (dyn GradientSink + '_)>,
    ) -> Result<(), Error> {
        let (ops, t) = (ctx.ops, tokens.count());
        let heads = geometry.heads;
        let workspace = |name, len| Buffer::alloc(ops, Owner::Workspace, name, len);

        // MLP.
        let Mlp { normed, rstd, mut gate, mut up, activated } = saved.mlp;
        let mut dact = workspace("activated gradient", t * self.down.cols())?;
        pending.down.push(linear_backward(ctx, &self.down, &activated, dx, &mut dact, false)?);
        linear::rotate(ctx, &self.down, &mut dact)?;
        drop(activated);
        if let Some(sink) = sink.as_deref_mut() {
            linear::flush(ctx, &mut self.down, &mut pending.down, sink)?;
        }
        ops.swiglu_backward(SwigluBackward { dy: &dact, gate: &mut gate, up: &mut up })?;
        drop(dact);
        let mut dnormed = workspace("normed gradient", dx.len())?;
        pending.gate.push(linear_backward(ctx, &self.gate, &normed, &gate, &mut dnormed, false)?);
        drop(gate);
        pending.up.push(linear_backward(ctx, &self.up, &normed, &up, &mut dnormed, true)?);
        linear::rotate(ctx, &self.up, &mut dnormed)?;
        drop((up, normed));
        if let Some(sink) = sink.as_deref_mut() {
            linear::flush(ctx, &mut self.gate, &mut pending.gate, sink)?;
            linear::flush(ctx, &mut self.up, &mut pending.up, sink)?;
        }
        let input = (&saved.mid, &rstd);
        pending.mlp_norm.backward(ctx, &self.mlp_norm, input, &dnormed, dx)?;
        drop((dnormed, saved.mid, rstd));

        // Attention.
        let mut dout = workspace("attention gradient", saved.q.len())?;
        let attention = saved.attention.activations();
        pending.o.push(linear_backward(ctx, &self.o, attention, dx, &mut dout, false)?);
        linear::rotate(ctx, &self.o, &mut dout)?;
        if let Some(sink) = sink.as_deref_mut() {
            pending.mlp_norm.flush(&mut self.mlp_norm, sink)?;
            linear::flush(ctx, &mut self.o, &mut pending.o, sink)?;
        }
        let mut dq = workspace("q gradient", saved.q.len())?;
        let mut dk = workspace("k gradient", saved.k.len())?;
        let mut dv = workspace("v gradient", saved.v.len())?;
        ops.attention_backward(AttentionBackward {
            q: &saved.q,
            k: &saved.k,
            v: &saved.v,
            out: saved.attention.float()?,
            lse: &saved.lse,
            dout: &dout,
            segments: &tokens.segments,
            heads,
            operands: Operands::beside(ctx.compute.forward, heads.size),
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
        })?;
        drop((saved.q, saved.k, saved.v, saved.attention, saved.lse, dout));
        for (x, heads) in [(&mut dq, heads.query), (&mut dk, heads.key_value)] {
            let (positions, inv_freq) = (&tokens.positions, geometry.inv_freq);
            ops.rope(Rope { x, positions, inv_freq, heads, inverse: true })?;
        }
        let mut dnormed = workspace("normed gradient", dx.len())?;
        let normed = &saved.x_normed;
        pending.q.push(linear_backward(ctx, &self.q, normed, &dq, &mut dnormed, false)?);
        pending.k.push(linear_backward(ctx, &self.k, normed, &dk, &mut dnormed, true)?);
        pending.v.push(linear_backward(ctx, &self.v, normed, &dv, &mut dnormed, true)?);
        linear::rotate(ctx, &self.v, &mut dnormed)?;
        drop((dq, dk, dv, saved.x_normed));
        if let Some(sink) = sink.as_deref_mut() {
            linear::flush(ctx, &mut self.q, &mut pending.q, sink)?;
            linear::flush(ctx, &mut self.k, &mut pending.k, sink)?;
            linear::flush(ctx, &mut self.v, &mut pending.v, sink)?;
        }
        let x = x.into_float(ops)?;
        let gain = &self.attention_norm;
        pending.attention_norm.backward(ctx, gain, (&x, &saved.x_rstd), &dnormed, dx)?;
        if let Some(sink) = sink {
            pending.attention_norm.flush(&mut self.attention_norm, sink)?;
        }
        Ok(())
    }
}

/// `dx (+)= dy W`, and the share of `dW` to be multiplied later.
fn linear_backward(
    ctx: &Context<'_>,
    w: &Matrix,
    x: &Arc<Activations>,
    dy: &Buffer<f32>,
    dx: &mut Buffer<f32>,
    accumulate: bool,
) -> Result<PendingGradient, Error> {
    let (for_input, for_weight) = linear::rounding(ctx, w)?;
    linear::backward_input(ctx, w, 0..w.rows(), dy, for_input, dx, accumulate)?;
    PendingGradient::new(ctx, w, x, dy, w.rows(), for_weight)
}
