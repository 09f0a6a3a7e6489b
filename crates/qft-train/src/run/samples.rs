//! What the model writes after a prompt, which shows more than a loss.

use super::events::{Event, Moment, Observers};
use super::finetune::{Run, State};
use super::generation::{Ended, Generation, SAMPLE_TOKENS};
use crate::error::Result;
use qft_llama::sampling::TokenSampler;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

impl Run<'_> {
    /// Lets the model continue the sample prompt, if there is one.
    pub(super) fn sample(
        &self,
        state: &State,
        moment: Moment,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        let prompt = self.options.progress.sample_prompt.as_ref();
        let Some(prompt) = prompt.filter(|_| self.job.leads()) else { return Ok(()) };
        let generation = Generation {
            ops: &*self.ops,
            model: &state.trainer.model,
            pass: state.trainer.pass,
            tokenizer: &self.folder.tokenizer,
        };
        let mut text = prompt.clone();
        let mut sampler = TokenSampler::new(0.0, 1.0, 0)?;
        let generated = generation.run(&self.prompt, SAMPLE_TOKENS, &mut sampler, &mut |part| {
            text.push_str(part);
            if self.stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if generated.ended == Ended::Stopped {
            self.check_stop("sampling")?;
        }
        observers.tell(Event::Sampled { moment, text: &text })
    }
}
