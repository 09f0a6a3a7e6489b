//! Generation, token by token, with a cache of keys and values.

use crate::block::attention::KeyValueCache;
use crate::error::Error;
use crate::model::Model;
use crate::pass::PassOptions;
use crate::stream::Stream;
use qft_autograd::layers::linear;
use qft_autograd::{Context, LayerOps};
use qft_tensor::{Buffer, Owner};

/// A text in progress: what the model has read and written so far.
#[derive(Debug)]
pub struct Session<'a> {
    ops: &'a dyn LayerOps,
    model: &'a Model,
    options: PassOptions,
    caches: Vec<KeyValueCache>,
    len: usize,
    capacity: usize,
}

impl<'a> Session<'a> {
    /// Room for `capacity` tokens, prompt included.
    ///
    /// Errors: more than the model allows; out of memory.
    pub fn new(
        ops: &'a dyn LayerOps,
        model: &'a Model,
        options: PassOptions,
        capacity: usize,
    ) -> Result<Self, Error> {
        let most = model.config.longest_sequence();
        if capacity > most {
            return Err(Error::SequenceTooLong { tokens: capacity, most });
        }
        let width = model.config.num_key_value_heads * model.config.head_dim;
        let room = || Buffer::alloc(ops, Owner::Activations, "key/value cache", capacity * width);
        let caches = (model.params.blocks.iter())
            .map(|_| Ok(KeyValueCache { k: room()?, v: room()? }))
            .collect::<Result<_, qft_tensor::Error>>()?;
        Ok(Self { ops, model, options, caches, len: 0, capacity })
    }

    /// Tokens there is still room for.
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// Reads `ids`; the logits `[V]` of the token that follows the last of them.
    ///
    /// Errors: no ids, more than there is room for, an id outside the vocabulary.
    pub fn read(&mut self, ids: &[u32]) -> Result<Vec<f32>, Error> {
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if ids.len() > self.room() {
            let tokens = self.len + ids.len();
            return Err(Error::SequenceTooLong { tokens, most: self.capacity });
        }
        let (ops, model) = (self.ops, self.model);
        let PassOptions { compute, seed, step, .. } = self.options;
        let ctx = Context { ops, compute, seed, step, micro_batch: 0 };
        let positions: Vec<u32> = (self.len as u32..(self.len + ids.len()) as u32).collect();
        let positions = Buffer::from_host(ops, Owner::Data, "positions", &positions)?;
        let ids_on_device = Buffer::from_host(ops, Owner::Data, "token ids", ids)?;
        let mut x = model.embed(&ctx, &ids_on_device)?;
        for (index, (block, cache)) in model.params.blocks.iter().zip(&mut self.caches).enumerate()
        {
            let layer = model.geometry.layer(&ctx, index, &positions);
            drop(Stream::round(ops, self.options.stream, &mut x)?);
            x = block.decode(layer, cache, self.len, x)?;
        }
        self.len += ids.len();
        let channels = model.params.norm.data.len();
        let mut last = Buffer::alloc(ops, Owner::Activations, "last position", channels)?;
        last.copy_from(ops, 0, &x, x.len() - channels..x.len())?;
        let head = model.head();
        let (normed, _) = model.final_norm(&ctx, &last)?;
        let mut logits = Buffer::alloc(ops, Owner::Loss, "logits", head.rows())?;
        linear::forward(&ctx, head, 0..head.rows(), &normed, &mut logits, false)?;
        Ok(logits.to_vec(ops)?)
    }
}
