//! Many texts at a time: every pass over the weights writes a token of each.

use super::{Ended, Generation, Speed};
use crate::error::Result;
use qft_llama::TextStream;
use qft_llama::generate::Sequence;
use qft_llama::sampling::TokenSampler;
use std::ops::ControlFlow;
use std::time::Instant;

/// How a model wrote on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continued {
    /// Which prompt it was, from 0.
    pub index: usize,
    /// What was written.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub tokens: usize,
    /// Why there are no more.
    pub ended: Ended,
}

/// How many prompts are continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// At a time.
    pub texts: usize,
    /// New tokens of each at most.
    pub most: usize,
}

/// A text in progress.
struct Text<'a> {
    index: usize,
    sequence: Sequence,
    sampler: TokenSampler,
    stream: TextStream<'a>,
    /// The tokens to be read next.
    unread: Vec<u32>,
    written: String,
    tokens: usize,
    /// New tokens at most.
    most: usize,
}

impl<'a> Generation<'a> {
    /// Continues every prompt, `together` at a time, each until it ends as [`Generation::run`] has it. `done` receives them
    /// as they end, which is not the order of the prompts, and may end it all.
    ///
    /// Numerics: each text has random numbers of its own, [`TokenSampler::of_text`] of its index. In INT8 it is the same
    /// whatever the others are; in float the last bits of logits may depend on how many there are.
    ///
    /// Errors: a prompt without tokens, or one that is longer than the model's sequences.
    pub fn run_many(
        &self,
        prompts: &[Vec<u32>],
        together: Together,
        sampler: &TokenSampler,
        done: &mut dyn FnMut(Continued) -> Result<ControlFlow<()>>,
    ) -> Result<Speed> {
        let mut waiting = prompts.iter().enumerate();
        let mut running: Vec<Text<'_>> = Vec::new();
        let mut speed = Speed::default();
        loop {
            // One text joins in each pass, so that no pass reads more than one prompt.
            let mut joined = 0;
            if running.len() < together.texts.max(1)
                && let Some((index, prompt)) = waiting.next()
            {
                running.push(self.text(index, prompt, together.most, sampler)?);
                joined = prompt.len();
            }
            if running.is_empty() {
                return Ok(speed);
            }
            let begun = Instant::now();
            self.pass(&mut running)?;
            if joined > 0 {
                (speed.read, speed.reading) =
                    (speed.read + joined, speed.reading + begun.elapsed());
            } else {
                speed.written += running.len();
                speed.writing += begun.elapsed();
            }
            for at in (0..running.len()).rev() {
                let Some(ended) = self.ended(&running[at]) else { continue };
                let Text { index, stream, mut written, tokens, .. } = running.swap_remove(at);
                written += &stream.finish()?;
                if done(Continued { index, text: written, tokens, ended })?.is_break() {
                    return Ok(speed);
                }
            }
        }
    }

    fn text(
        &self,
        index: usize,
        prompt: &[u32],
        most: usize,
        sampler: &TokenSampler,
    ) -> Result<Text<'a>> {
        let limit = self.model.config.longest_sequence();
        let capacity = prompt.len().saturating_add(most).min(limit).max(prompt.len());
        Ok(Text {
            index,
            sequence: self.decoder().sequence(capacity)?,
            sampler: sampler.of_text(index as u32),
            stream: self.tokenizer.stream(prompt),
            unread: prompt.to_vec(),
            written: String::new(),
            tokens: 0,
            most: capacity - prompt.len(),
        })
    }

    /// Reads what is unread of each text, and chooses its next token.
    fn pass(&self, running: &mut [Text<'_>]) -> Result<()> {
        let mut parts: Vec<_> =
            running.iter_mut().map(|text| (&mut text.sequence, &text.unread[..])).collect();
        let mut logits = self.decoder().read(&mut parts)?;
        let vocabulary = logits.len() / running.len();
        for (text, logits) in running.iter_mut().zip(logits.chunks_exact_mut(vocabulary)) {
            if text.most == 0 {
                continue;
            }
            let id = text.sampler.sample(logits)?;
            text.unread = vec![id];
            if !self.tokenizer.eos().contains(&id) {
                text.tokens += 1;
                text.written += &text.stream.push(id)?;
            }
        }
        Ok(())
    }

    /// Why a text goes on no more.
    fn ended(&self, text: &Text<'_>) -> Option<Ended> {
        let ends = |id: &u32| text.most > 0 && self.tokenizer.eos().contains(id);
        if text.unread.last().is_some_and(ends) {
            return Some(Ended::ByItself);
        }
        (text.tokens >= text.most).then_some(Ended::Full)
    }
}
