//! Answers to held-out questions: whether they end by themselves, which no loss tells.

use super::events::{Event, Moment, Observers};
use super::finetune::{Run, State};
use super::generation::{Ended, Generation};
use super::summary::AnswerMetrics;
use crate::error::Result;
use crate::step::answers::Answers;
use qft_llama::sampling::TokenSampler;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

impl Run<'_> {
    /// Lets the model answer the questions before the first step, if there are any. A run that was resumed knows what
    /// became of them, or will not: then there is no model left that could be asked.
    pub(super) fn answer_before(
        &self,
        state: &mut State,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        let known = state.progress.initial_answers;
        let known = known.filter(|answers| answers.asked == self.questions.len());
        state.progress.initial_answers = match known {
            None if state.progress.step == 0 => self.answer(state, Moment::Before, observers)?,
            known => known,
        };
        Ok(())
    }

    /// Lets the model answer the questions, each token the likeliest one.
    pub(super) fn answer(
        &self,
        state: &State,
        moment: Moment,
        observers: &mut Observers<'_, '_>,
    ) -> Result<Option<Answers>> {
        if self.questions.is_empty() || !self.job.leads() {
            return Ok(None);
        }
        let generation = Generation {
            ops: &*self.ops,
            model: &state.trainer.model,
            pass: state.trainer.pass,
            tokenizer: &self.folder.tokenizer,
        };
        let mut answers = Answers { asked: self.questions.len(), ended: 0, mean_tokens: 0.0 };
        for question in &self.questions {
            let mut sampler = TokenSampler::new(0.0, 1.0, 0)?;
            let generated =
                generation.run(&question.ids, question.most, &mut sampler, &mut |_| match self
                    .stop
                    .load(Ordering::Relaxed)
                {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })?;
            self.check_stop("answering")?;
            answers.ended += usize::from(generated.ended == Ended::ByItself);
            answers.mean_tokens += generated.tokens as f64 / answers.asked as f64;
            // Blocks that are kept for reuse fit this question.
            self.ops.trim();
        }
        let metrics = AnswerMetrics { step: u64::from(state.progress.step), answers };
        observers.tell(Event::Answered { moment, metrics })?;
        Ok(Some(answers))
    }
}
