//! How good the model is between steps: the loss of the held-out data.

use super::events::{Event, Moment, Observers};
use super::finetune::{Run, State};
use super::summary::EvalMetrics;
use crate::data::Dataset;
use crate::error::Result;
use qft_llama::Batch;

impl Run<'_> {
    /// The batches of an evaluation; none comes once the run was asked to stop.
    pub(super) fn evaluated(&self, held_out: &Dataset) -> impl Iterator<Item = Result<Batch>> {
        let most = self.options.progress.eval_batches.unwrap_or(usize::MAX);
        let batches = held_out.batches(self.options.step.batch_size).take(most);
        batches.map(|batch| self.check_stop("evaluating").and(batch))
    }

    /// The loss of the held-out data, if there is any. What was found of the same step is not computed again.
    pub(super) fn evaluate(
        &self,
        state: &mut State,
        moment: Moment,
        observers: &mut Observers<'_, '_>,
    ) -> Result<Option<f64>> {
        let Some(held_out) = &self.held_out else { return Ok(None) };
        let step = u64::from(state.progress.step);
        let metrics = match state.evaluated.filter(|known| known.step == step) {
            Some(known) => known,
            None => {
                let (eval_loss, _) = state.trainer.evaluate(&*self.ops, self.evaluated(held_out))?;
                let compute = state.trainer.pass.compute.forward;
                EvalMetrics { step, eval_loss, compute }
            }
        };
        state.evaluated = Some(metrics);
        observers.tell(Event::Evaluated { moment, metrics })?;
        Ok(Some(metrics.eval_loss))
    }
}
