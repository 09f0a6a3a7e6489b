//! How good the model is between steps: the loss of the held-out data.

use super::events::{Event, Moment, Observers};
use super::finetune::{Run, State};
use super::summary::{EvalMetrics, SetMetrics};
use crate::data::Dataset;
use crate::error::Result;
use qft_llama::Batch;
use qft_llama::pass::Loss;

impl Run<'_> {
    /// The batches of an evaluation of a set; none comes once the run was asked to stop.
    pub(super) fn evaluated(&self, set: &Dataset) -> impl Iterator<Item = Result<Batch>> {
        let most = self.options.progress.eval_batches.unwrap_or(usize::MAX);
        let batches = set.batches(self.options.step.batch_size).take(most);
        batches.map(|batch| self.check_stop("evaluating").and(batch))
    }

    /// The loss of the held-out data, if there is any. What was found of the same step is not computed again.
    pub(super) fn evaluate(
        &self,
        state: &mut State,
        moment: Moment,
        observers: &mut Observers<'_, '_>,
    ) -> Result<Option<f64>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let step = u64::from(state.progress.step);
        let metrics = match state.evaluated.filter(|known| known.step == step) {
            Some(known) => known,
            None => {
                let loss = self.measure_sets(state, moment, observers)?;
                let compute = state.trainer.pass.compute.forward;
                let (eval_loss, eval_accuracy) = (loss.mean, loss.accuracy());
                EvalMetrics { step, eval_loss, eval_accuracy, compute }
            }
        };
        state.evaluated = Some(metrics);
        observers.tell(Event::Evaluated { moment, metrics })?;
        Ok(Some(metrics.eval_loss))
    }

    /// The loss of all sets together; that of each is told by its name.
    fn measure_sets(
        &self,
        state: &State,
        moment: Moment,
        observers: &mut Observers<'_, '_>,
    ) -> Result<Loss> {
        let mut losses = Vec::with_capacity(self.held_out.len());
        for set in &self.held_out {
            let loss = state.trainer.evaluate(&*self.ops, self.evaluated(&set.data))?;
            if let Some(name) = &set.name {
                let metrics = &SetMetrics {
                    step: u64::from(state.progress.step),
                    set: name.clone(),
                    set_loss: loss.mean,
                    set_accuracy: loss.accuracy(),
                };
                observers.tell(Event::SetEvaluated { moment, metrics })?;
            }
            losses.push(loss);
        }
        Ok(Loss::of_parts(&losses))
    }
}
