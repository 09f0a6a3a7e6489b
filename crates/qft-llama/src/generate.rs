//! Generation, token by token: each text with a cache of its keys and values, many texts in one pass.

use crate::block::attention::{KeyValueCache, Reading};
use crate::error::Error;
use crate::model::Model;
use crate::pass::PassOptions;
use crate::stream::Stream;
use qft_autograd::layers::linear;
use qft_autograd::{Context, LayerOps};
use qft_tensor::{Buffer, DeviceKind, Owner};

/// A text in progress: what a model has read and written of it.
#[derive(Debug)]
pub struct Sequence {
    /// Of each block.
    caches: Vec<KeyValueCache>,
    len: usize,
    capacity: usize,
}

impl Sequence {
    /// Tokens that it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no token yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens there is still room for.
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// Continues texts with a model.
#[derive(Debug, Clone, Copy)]
pub struct Decoder<'a> {
    ops: &'a dyn LayerOps,
    model: &'a Model,
    options: PassOptions,
}

impl<'a> Decoder<'a> {
    /// Texts of `model`, computed as `options` say.
    pub fn new(ops: &'a dyn LayerOps, model: &'a Model, options: PassOptions) -> Self {
        Self { ops, model, options }
    }

    /// An empty text with room for `capacity` tokens.
    ///
    /// Errors: more than the model allows; out of memory.
    pub fn sequence(&self, capacity: usize) -> Result<Sequence, Error> {
        let mut sequence = Sequence { caches: Vec::new(), len: 0, capacity: 0 };
        self.reserve(&mut sequence, capacity)?;
        Ok(sequence)
    }

    /// Gives a text room for `capacity` tokens in all, if it has less.
    ///
    /// Errors: more than the model allows; out of memory.
    pub fn reserve(&self, sequence: &mut Sequence, capacity: usize) -> Result<(), Error> {
        let config = &self.model.config;
        let most = config.longest_sequence();
        if capacity > most {
            return Err(Error::SequenceTooLong { tokens: capacity, most });
        }
        if capacity <= sequence.capacity {
            return Ok(());
        }
        let width = config.num_key_value_heads * config.head_dim;
        let filled = 0..sequence.len * width;
        let grown = |old: Option<&Buffer<f32>>| -> Result<_, qft_tensor::Error> {
            let (owner, name) = (Owner::Activations, "key/value cache");
            let mut new = Buffer::alloc(self.ops, owner, name, capacity * width)?;
            if let Some(old) = old {
                new.copy_from(self.ops, 0, old, filled.clone())?;
            }
            Ok(new)
        };
        for block in 0..self.model.params.blocks.len() {
            let old = sequence.caches.get(block);
            let new = KeyValueCache { k: grown(old.map(|c| &c.k))?, v: grown(old.map(|c| &c.v))? };
            match sequence.caches.get_mut(block) {
                Some(old) => *old = new,
                None => sequence.caches.push(new),
            }
        }
        sequence.capacity = capacity;
        Ok(())
    }

    /// Reads the ids that follow each text; the logits f32 `[texts, V]` of the token after the last of each.
    ///
    /// Numerics: in INT8 the same bits for a text, whatever others are read with it; in float they may differ in the
    /// last place.
    ///
    /// Errors: a text without ids, more than there is room for, an id outside the vocabulary.
    pub fn read(&self, texts: &mut [(&mut Sequence, &[u32])]) -> Result<Vec<f32>, Error> {
        for (sequence, ids) in texts.iter() {
            if ids.is_empty() {
                return Err(Error::EmptyPrompt);
            }
            if ids.len() > sequence.room() {
                let tokens = sequence.len + ids.len();
                return Err(Error::SequenceTooLong { tokens, most: sequence.capacity });
            }
        }
        let logits = match (self.ops.kind(), self.ops.host()) {
            // One visit to the threads instead of one for each of many small operations.
            (DeviceKind::Cpu, Ok(host)) => host.install(|| self.logits(texts)),
            _ => self.logits(texts),
        }?;
        for (sequence, ids) in texts {
            sequence.len += ids.len();
        }
        Ok(logits)
    }

    fn logits(&self, texts: &mut [(&mut Sequence, &[u32])]) -> Result<Vec<f32>, Error> {
        let (ops, model) = (self.ops, self.model);
        let PassOptions { compute, seed, step, .. } = self.options;
        let ctx = Context { ops, compute, seed, step, micro_batch: 0, micro_batches: 1 };
        let (mut ids, mut positions, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, new) in texts.iter() {
            ids.extend_from_slice(new);
            positions.extend((sequence.len..sequence.len + new.len()).map(|place| place as u32));
            parts.push(Reading { past: sequence.len, new: new.len() });
        }
        let ids = Buffer::from_host(ops, Owner::Data, "token ids", &ids)?;
        let positions = Buffer::from_host(ops, Owner::Data, "positions", &positions)?;
        let mut x = model.embed(&ctx, &ids)?;
        for (index, block) in model.params.blocks.iter().enumerate() {
            let layer = model.geometry.layer(&ctx, index, &positions);
            drop(Stream::round(ops, self.options.stream, &mut x)?);
            let caches = texts.iter_mut().map(|(sequence, _)| &mut sequence.caches[index]);
            let mut caches: Vec<_> = parts.iter().copied().zip(caches).collect();
            x = block.decode(layer, &mut caches, x)?;
        }
        let channels = model.params.norm.data.len();
        let mut last =
            Buffer::alloc(ops, Owner::Activations, "last positions", parts.len() * channels)?;
        let mut end = 0;
        for (row, part) in parts.iter().enumerate() {
            end += part.new * channels;
            last.copy_from(ops, row * channels, &x, end - channels..end)?;
        }
        let head = model.head();
        let (normed, _) = model.final_norm(&ctx, &last)?;
        let mut logits = Buffer::alloc(ops, Owner::Loss, "logits", parts.len() * head.rows())?;
        linear::forward(&ctx, head, 0..head.rows(), &normed, &mut logits, false)?;
        Ok(logits.to_vec(ops)?)
    }
}
