//! The saved model, measured as its reader will compute: loaded again from its folder, in float compute.

use super::finetune::Run;
use super::folder::ModelFolder;
use super::summary::{LeftOut, SavedEval};
use crate::error::{ErrorKind, Result};
use crate::memory::{Budget, Fit, RunShape, StepShape, plan_evaluation};
use crate::options::States;
use crate::step::trainer::evaluate;
use qft_autograd::Compute;
use qft_llama::LlamaConfig;
use qft_llama::model::WeightFormat;
use qft_llama::pass::{PassOptions, Recompute, StreamFormat};

/// How the saved model is read again and measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct SavedModel {
    /// How its weights are held.
    states: States,
    /// What that takes, if it is more than is free.
    missing: Option<u64>,
}

impl SavedModel {
    /// As f32 if that takes no more than the training did; else in 16 bits, which are far finer than those of the file,
    /// in half the bytes. Nothing if nothing is held out. The plan of `fit` then counts it.
    ///
    /// Errors: none that a model should cause which could be planned.
    pub(super) fn choose(
        config: &LlamaConfig,
        shape: RunShape,
        fit: &mut Fit,
        budget: Budget,
    ) -> Result<Option<Self>> {
        let Some(seq_len) = shape.evaluated else { return Ok(None) };
        let shape = StepShape { seq_len, ..shape.step };
        let planned = |states| plan_evaluation(config, format(states), &PASS, shape);
        let mut states = States::F32;
        let mut report = planned(states)?;
        if fit.need_with(&report) > fit.need_bytes {
            states = States::Full;
            report = planned(states)?;
        }
        let need = fit.need_with(&report);
        if budget.free_bytes.is_some_and(|free| need > free) {
            return Ok(Some(Self { states, missing: Some(need) }));
        }
        fit.plan.then(&report);
        fit.need_bytes = need;
        Ok(Some(Self { states, missing: None }))
    }
}

/// How a reader of the saved model computes.
const PASS: PassOptions = PassOptions {
    compute: Compute::Float,
    recompute: Recompute::None,
    stream: StreamFormat::F32,
    seed: 0,
    step: 0,
};

fn format(states: States) -> WeightFormat {
    states.format(0.0)
}

impl Run<'_> {
    /// The loss of the held-out data under the saved model, if there is held-out data. The trainer must be gone: the plan
    /// has it so.
    ///
    /// Errors: what was saved cannot be read again.
    pub(super) fn measure_saved(&self, step: u64) -> Result<Option<SavedEval>> {
        let (Some(saved), Some(held_out)) = (self.saved, &self.held_out) else { return Ok(None) };
        let (compute, states) = (PASS.compute, saved.states);
        let found = SavedEval { step, saved_eval_loss: None, compute, states, left_out: None };
        if let Some(need) = saved.missing {
            return Ok(Some(SavedEval { left_out: Some(LeftOut::Memory(need)), ..found }));
        }
        let measure = || -> Result<f64> {
            let ops = &*self.ops;
            ops.trim();
            let folder = ModelFolder::open(&self.options.files.out)?;
            let model = folder.load(ops, format(states), self.stop, &mut |_, _| ())?;
            Ok(evaluate(ops, &model, &PASS, self.evaluated(held_out))?.0)
        };
        match measure() {
            Ok(loss) => Ok(Some(SavedEval { saved_eval_loss: Some(loss), ..found })),
            Err(error) if error.kind() == ErrorKind::Stopped => {
                Ok(Some(SavedEval { left_out: Some(LeftOut::Stopped), ..found }))
            }
            Err(error) => Err(error.context("the model was saved, but measuring it failed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Request;
    use crate::options::states::{StateArgs, WeightArgs};
    use crate::options::{OptimizerKind, OptimizerOptions};

    /// The plan of a run, and how its saved model is measured in as much memory as that takes, and `more`.
    fn chosen(training: States, seq_len: usize, more: i64) -> (u64, Fit, SavedModel) {
        let config = LlamaConfig::preset("tinyllama-1.1b").unwrap();
        let optimizer = OptimizerOptions::for_plan(OptimizerKind::Lion);
        let weights = WeightArgs { states: Some(training), ..WeightArgs::default() };
        let args = StateArgs { weights, ..StateArgs::default() };
        let state = args.resolve(OptimizerKind::Lion).unwrap();
        let step = StepShape { seq_len: 64, batch_size: 1, accumulate: 1 };
        let shape = RunShape { evaluated: Some(seq_len), ..step.into() };
        let request = Request { config: &config, state, optimizer: &optimizer, shape };
        let budget = Budget { free_bytes: None, overhead_bytes: 1000 };
        let mut fit = request.fit(budget).unwrap();
        let before = fit.need_bytes;
        let free_bytes = before.checked_add_signed(more);
        let budget = Budget { free_bytes, ..budget };
        let saved = SavedModel::choose(&config, shape, &mut fit, budget).unwrap().unwrap();
        (before, fit, saved)
    }

    #[test]
    fn measuring_takes_no_more_than_training_where_it_can() {
        // f32 states are twice as large as f32 weights.
        let (before, fit, saved) = chosen(States::F32, 64, 0);
        assert_eq!((saved.states, saved.missing), (States::F32, None));
        assert_eq!(fit.need_bytes, before);
        // Three bytes a parameter are fewer than the four of f32, and more than the two of 16 bits.
        let (before, fit, saved) = chosen(States::Full, 64, 0);
        assert_eq!((saved.states, saved.missing), (States::Full, None));
        assert_eq!(fit.need_bytes, before);
        // Longer sequences may take more than the training; the plan says so, or it is left out.
        let (before, fit, saved) = chosen(States::Compact, 2048, 4 << 30);
        assert_eq!((saved.states, saved.missing), (States::Full, None));
        let more = fit.need_bytes.checked_sub(before).filter(|&more| more > 0).unwrap();
        assert_eq!(fit.need_bytes, fit.plan.reserved_bytes + 1000);
        let (before, fit, saved) = chosen(States::Compact, 2048, more as i64 - 1);
        assert_eq!((saved.missing, fit.need_bytes), (Some(before + more), before));
    }
}
