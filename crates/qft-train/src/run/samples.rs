//! What the model writes after prompts, which shows more than a loss.

use super::events::{Event, Moment, Observers};
use super::finetune::{Run, State};
use super::generation::{Ended, Generation};
use super::summary::SampleMetrics;
use crate::data::TextEncoder;
use crate::data::encoder::at_start;
use crate::error::Result;
use qft_llama::sampling::TokenSampler;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// Tokens of a sample.
const SAMPLE_TOKENS: usize = 64;

/// A prompt that the model continues along the way.
#[derive(Debug)]
pub(super) struct SamplePrompt {
    text: String,
    ids: Vec<u32>,
}

impl SamplePrompt {
    /// Prompts as the model reads them.
    ///
    /// Errors: a text that cannot be encoded.
    pub(super) fn all(texts: &[String], encoder: &dyn TextEncoder) -> Result<Vec<Self>> {
        let prompt = |text: &String| Ok(Self { text: text.clone(), ids: at_start(encoder, text)? });
        texts.iter().map(prompt).collect()
    }

    /// Tokens of the prompt and all that may follow.
    pub(super) fn longest(&self) -> usize {
        self.ids.len() + SAMPLE_TOKENS
    }
}

impl Run<'_> {
    /// Lets the model continue the sample prompts, each token the likeliest one.
    pub(super) fn sample(
        &self,
        state: &State,
        moment: Moment,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        if self.prompts.is_empty() || !self.job.leads() {
            return Ok(());
        }
        let generation = Generation {
            ops: &*self.ops,
            model: &state.trainer.model,
            pass: state.trainer.pass,
            tokenizer: &self.folder.tokenizer,
        };
        for prompt in &self.prompts {
            // Blocks that are kept for reuse fit what was done before.
            self.ops.trim();
            let mut sample = String::new();
            let mut sampler = TokenSampler::new(0.0, 1.0, 0)?;
            let mut write = |part: &str| {
                sample.push_str(part);
                match self.stop.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            };
            let generated = generation.run(&prompt.ids, SAMPLE_TOKENS, &mut sampler, &mut write)?;
            if generated.ended == Ended::Stopped {
                self.check_stop("sampling")?;
            }
            // Of the model as it is, which may be an earlier one at the end.
            let step = u64::from(state.trainer.pass.step);
            let sample = SampleMetrics { step, prompt: prompt.text.clone(), sample };
            observers.tell(Event::Sampled { moment, sample: &sample })?;
        }
        self.ops.trim();
        Ok(())
    }
}
