//! What a model writes: the continuation of a prompt, token by token.

mod many;

pub use many::{Continued, Together};

use crate::TrainOps;
use crate::error::Result;
use qft_llama::Tokenizer;
use qft_llama::generate::{Decoder, Sequence};
use qft_llama::model::Model;
use qft_llama::pass::PassOptions;
use qft_llama::sampling::TokenSampler;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What a generation came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generated {
    /// New tokens, without the one that ended it.
    pub tokens: usize,
    /// Why there are no more.
    pub ended: Ended,
    /// How long it took.
    pub speed: Speed,
}

/// How long generations took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Speed {
    /// Tokens that were read, not being written.
    pub read: usize,
    /// In this time.
    pub reading: Duration,
    /// Tokens that were written and then read to write the next.
    pub written: usize,
    /// In this time.
    pub writing: Duration,
}

impl fmt::Display for Speed {
    /// `read 12 tokens at 250 a second, wrote 64 at 41.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        let Self { read, reading, written, writing } = *self;
        write!(f, "read {read} tokens at {:.0} a second", rate(read, reading))?;
        if written > 0 {
            write!(f, ", wrote {written} at {:.1}", rate(written, writing))?;
        }
        Ok(())
    }
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

/// What a generation reads from.
#[derive(Debug, Clone, Copy)]
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

/// A text that a model has read, for going on with it or with another that begins the same.
#[derive(Debug)]
pub struct ReadText {
    sequence: Sequence,
    /// The tokens in the sequence.
    ids: Vec<u32>,
}

impl ReadText {
    /// Tokens that it has.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

impl<'a> Generation<'a> {
    /// Continues `prompt` until an end-of-sequence token, `most` new tokens, or the end of the model's positions or window;
    /// `write` receives whole characters as they come, and may end it.
    pub fn run(
        &self,
        prompt: &[u32],
        most: usize,
        sampler: &mut TokenSampler,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        self.go_on(&mut self.begin()?, prompt, most, sampler, write)
    }

    /// A text of which nothing has been read.
    pub fn begin(&self) -> Result<ReadText> {
        Ok(ReadText { sequence: self.decoder().sequence(0)?, ids: Vec::new() })
    }

    fn decoder(&self) -> Decoder<'a> {
        Decoder::new(self.ops, self.model, self.pass)
    }

    /// As [`Generation::run`]; as far as `prompt` begins like `text`, it is not read again. `text` is then what has been read.
    pub fn go_on(
        &self,
        text: &mut ReadText,
        prompt: &[u32],
        most: usize,
        sampler: &mut TokenSampler,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let limit = self.model.config.longest_sequence();
        let capacity = prompt.len().saturating_add(most).min(limit).max(prompt.len());
        let decoder = self.decoder();
        decoder.reserve(&mut text.sequence, capacity)?;
        let same = text.ids.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last token is read in any case: it says what comes next.
        let same = same.min(prompt.len().saturating_sub(1));
        text.ids.truncate(same);
        text.sequence.truncate(same);
        let mut read = |ids: &[u32]| -> Result<Vec<f32>> {
            let logits = decoder.read(&mut [(&mut text.sequence, ids)])?;
            text.ids.extend_from_slice(ids);
            Ok(logits)
        };
        let begun = Instant::now();
        let mut logits = read(&prompt[same..])?;
        let reading = begun.elapsed();
        let mut speed = Speed { read: prompt.len() - same, reading, ..Speed::default() };
        let begun = Instant::now();
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
                ended = Ended::Stopped;
                break;
            }
            if produced < capacity - prompt.len() {
                logits = read(&[id])?;
                speed.written += 1;
            }
        }
        speed.writing = begun.elapsed();
        if ended != Ended::Stopped && write(&stream.finish()?).is_break() {
            ended = Ended::Stopped;
        }
        Ok(Generated { tokens, ended, speed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_rates() {
        let second = Duration::from_secs(1);
        let speed = Speed { read: 12, reading: second / 2, written: 64, writing: 2 * second };
        assert_eq!(speed.to_string(), "read 12 tokens at 24 a second, wrote 64 at 32.0");
        let none = Speed { written: 0, writing: Duration::ZERO, ..speed };
        assert_eq!(none.to_string(), "read 12 tokens at 24 a second");
    }
}
