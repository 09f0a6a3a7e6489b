//! What a block needs beside its parameters.

use crate::config::LlamaConfig;
use qft_autograd::{Context, Heads};
use qft_tensor::{Buffer, Device, Error, Owner};

/// What all blocks of a model have in common.
#[derive(Debug)]
pub(crate) struct Geometry {
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    /// Rotary frequencies f32 `[D / 2]`.
    pub(crate) inv_freq: Buffer<f32>,
}

/// What a block computes with on its way through some tokens.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) geometry: &'a Geometry,
    /// Position of each token in its document, u32 `[T]`.
    pub(crate) positions: &'a Buffer<u32>,
}

impl Geometry {
    pub(crate) fn new(device: &dyn Device, config: &LlamaConfig) -> Result<Self, Error> {
        let heads = Heads {
            query: config.num_attention_heads,
            key_value: config.num_key_value_heads,
            size: config.head_dim,
        };
        let (owner, name) = (Owner::Workspace, "rotary frequencies");
        let inv_freq = Buffer::from_host(device, owner, name, &config.inv_freq())?;
        Ok(Self { heads, eps: config.rms_norm_eps, inv_freq })
    }
}
