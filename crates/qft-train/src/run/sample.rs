//! What a model writes: the continuation of a prompt, token by token.

use crate::TrainOps;
use crate::error::Result;
use qft_llama::Tokenizer;
use qft_llama::generate::Session;
use qft_llama::model::Model;
use qft_llama::pass::PassOptions;
use qft_llama::sampling::TokenSampler;
use std::ops::ControlFlow;

/// What a generation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// New tokens, without the one that ended it.
    pub tokens: usize,
    /// Why there are no more.
    pub ended: Ended,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By an end-of-sequence token.
    ByItself,
    /// It had as many tokens as it might have.
    Full,
    /// Whoever received it wanted no more.
    Stopped,
}

/// Tokens of a sample that is shown before and after training.
pub(super) const SAMPLE_TOKENS: usize = 64;

/// What a generation reads from.
#[derive(Debug)]
pub struct Generation<'a> {
    /// The device.
    pub ops: &'a dyn TrainOps,
    /// The model.
    pub model: &'a Model,
    /// How it computes.
    pub pass: PassOptions,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
}

impl Generation<'_> {
    /// Continues `prompt` until an end-of-sequence token, `most` new tokens, or the end of the model's positions or window;
    /// `write` receives whole characters as they come, and may end it.
    pub fn run(
        &self,
        prompt: &[u32],
        most: usize,
        sampler: &mut TokenSampler,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let limit = self.model.config.longest_sequence();
        let capacity = prompt.len().saturating_add(most).min(limit).max(prompt.len());
        let mut session = Session::new(self.ops, self.model, self.pass, capacity)?;
        let mut logits = session.read(prompt)?;
        let mut stream = self.tokenizer.stream(prompt);
        let (mut tokens, mut ended) = (0, Ended::Full);
        for produced in 1..=capacity - prompt.len() {
            let id = sampler.sample(&mut logits)?;
            if self.tokenizer.eos().contains(&id) {
                ended = Ended::ByItself;
                break;
            }
            tokens = produced;
            if write(&stream.push(id)?).is_break() {
                return Ok(Generated { tokens, ended: Ended::Stopped });
            }
            if produced < capacity - prompt.len() {
                logits = session.read(&[id])?;
            }
        }
        if write(&stream.finish()?).is_break() {
            ended = Ended::Stopped;
        }
        Ok(Generated { tokens, ended })
    }
}
