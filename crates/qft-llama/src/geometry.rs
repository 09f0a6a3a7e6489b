//! What a block needs beside its parameters.

use crate::config::{LayerKind, LayerRope, LlamaConfig, NormPlacement};
use qft_autograd::{Context, Heads};
use qft_tensor::{Buffer, Device, Error, Owner};

/// What the blocks of a model have in common.
#[derive(Debug)]
pub(crate) struct Geometry {
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    /// Where the norms of a block stand.
    pub(crate) norms: NormPlacement,
    /// What a branch's output is multiplied by before it is added to the residual stream.
    pub(crate) residual: f32,
    /// What queries are multiplied by as they are turned, so that scores over `sqrt(D)` become what the model wants. Families
    /// that have it turn all channels in all layers.
    pub(crate) query_scale: f32,
    layers: Vec<LayerKind>,
    plain: Rotation,
    scaled: Rotation,
}

/// How heads are turned by their positions.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// f32 `[R / 2]`, for the first R channels of a head.
    pub(crate) inv_freq: Buffer<f32>,
    /// The factor of what is turned.
    pub(crate) scale: f32,
}

/// What a block computes with on its way through some tokens.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) geometry: &'a Geometry,
    /// How heads are turned; absent in layers without positions.
    pub(crate) rotation: Option<&'a Rotation>,
    /// Position of each token in its document, u32 `[T]`.
    pub(crate) positions: &'a Buffer<u32>,
}

impl Geometry {
    pub(crate) fn new(device: &dyn Device, config: &LlamaConfig) -> Result<Self, Error> {
        let size = config.head_dim;
        let heads = Heads {
            query: config.num_attention_heads,
            key_value: config.num_key_value_heads,
            size,
        };
        let rotation = |inv_freq: &[f32], scale| {
            let (owner, name) = (Owner::Workspace, "rotary frequencies");
            Ok(Rotation { inv_freq: Buffer::from_host(device, owner, name, inv_freq)?, scale })
        };
        let factors = &config.multipliers;
        Ok(Self {
            heads,
            eps: config.rms_norm_eps,
            norms: config.norms,
            residual: factors.residual,
            query_scale: factors.attention.map_or(1.0, |factor| factor * (size as f32).sqrt()),
            layers: config.layers.clone(),
            plain: rotation(&config.plain_inv_freq(), 1.0)?,
            scaled: rotation(&config.inv_freq(), config.rope.attention_factor())?,
        })
    }

    /// Block number `index` on its way through tokens at `positions`.
    pub(crate) fn layer<'a>(
        &'a self,
        ctx: &'a Context<'a>,
        index: usize,
        positions: &'a Buffer<u32>,
    ) -> Layer<'a> {
        let rotation = match self.layers[index].rope {
            LayerRope::None => None,
            LayerRope::Plain => Some(&self.plain),
            LayerRope::Scaled => Some(&self.scaled),
        };
        Layer { ctx, geometry: self, rotation, positions }
    }
}
