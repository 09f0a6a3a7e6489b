//! The saved model, measured as its reader will compute: loaded again from its folder, in float compute on f32 weights.

use super::finetune::Run;
use super::folder::ModelFolder;
use super::summary::{LeftOut, SavedEval};
use crate::error::{ErrorKind, Result};
use crate::memory::{Budget, Fit, RunShape, StepShape, plan_evaluation};
use crate::step::trainer::evaluate;
use qft_autograd::Products;
use qft_llama::LlamaConfig;
use qft_llama::model::WeightFormat;
use qft_llama::pass::{PassOptions, Recompute};
use qft_llama::stream::StreamFormat;

/// Whether the saved model can be read again and measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct SavedModel {
    /// What that takes, if it is more than is free.
    missing: Option<u64>,
}

impl SavedModel {
    /// If it fits, once the memory of the training is given back, the plan of `fit` counts it. Absent if nothing is held
    /// out.
    ///
    /// Errors: none that a model should cause which could be planned.
    pub(super) fn planned(
        config: &LlamaConfig,
        shape: RunShape,
        fit: &mut Fit,
        budget: Budget,
    ) -> Result<Option<Self>> {
        let Some(seq_len) = shape.evaluated else { return Ok(None) };
        let shape = StepShape { seq_len, ..shape.step };
        let report = plan_evaluation(config, WeightFormat::Float, &PASS, shape)?;
        let need = fit.need_with(&report);
        if budget.free_bytes.is_some_and(|free| need > free) {
            return Ok(Some(Self { missing: Some(need) }));
        }
        fit.plan.then(&report);
        fit.need_bytes = need;
        Ok(Some(Self { missing: None }))
    }
}

/// How a reader of the saved model computes.
const PASS: PassOptions = PassOptions {
    compute: Products::FLOAT,
    recompute: Recompute::None,
    stream: StreamFormat::F32,
    seed: 0,
    step: 0,
};

impl Run<'_> {
    /// The loss of the held-out data under the saved model, if there is held-out data. The trainer must be gone: the plan
    /// has it so.
    ///
    /// Errors: what was saved cannot be read again.
    pub(super) fn measure_saved(&self, step: u64) -> Result<Option<SavedEval>> {
        let Some(saved) = self.saved else { return Ok(None) };
        let compute = PASS.compute.forward;
        let found = SavedEval { step, saved_eval_loss: None, compute, left_out: None };
        if let Some(need) = saved.missing {
            return Ok(Some(SavedEval { left_out: Some(LeftOut::Memory(need)), ..found }));
        }
        let measure = || -> Result<f64> {
            let ops = &*self.ops;
            ops.trim();
            let folder = ModelFolder::open(&self.options.files.out)?;
            let folder = folder.for_sequences(self.folder.config.sequence);
            let model = folder.load(ops, WeightFormat::Float, self.stop, &mut |_, _| ())?;
            let batches = self.held_out.iter().flat_map(|set| self.evaluated(&set.data));
            Ok(evaluate(ops, &model, &PASS, batches)?.mean)
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
    use crate::options::{OptimizerKind, OptimizerOptions, States};

    /// What a run needs that has `more` than its training, then its plan and whether its saved model is measured.
    fn planned(training: States, more: u64) -> (u64, Fit, SavedModel) {
        let config = LlamaConfig::preset("tinyllama-1.1b").unwrap();
        let optimizer = OptimizerOptions::for_plan(OptimizerKind::Lion);
        let weights = WeightArgs { states: Some(training), ..WeightArgs::default() };
        let args = StateArgs { weights, ..StateArgs::default() };
        let state = args.resolve(OptimizerKind::Lion).unwrap();
        let step = StepShape { seq_len: 64, batch_size: 1, accumulate: 1 };
        let shape = RunShape { evaluated: Some(64), ..step.into() };
        let request = Request { config: &config, state, optimizer: &optimizer, shape };
        let budget = Budget { free_bytes: None, overhead_bytes: 1000 };
        let mut fit = request.fit(budget).unwrap();
        let before = fit.need_bytes;
        let budget = Budget { free_bytes: Some(before + more), ..budget };
        let saved = SavedModel::planned(&config, shape, &mut fit, budget).unwrap().unwrap();
        (before, fit, saved)
    }

    #[test]
    fn the_plan_counts_the_saved_model_or_it_is_left_out() {
        // f32 states are twice as large as f32 weights.
        let (before, fit, saved) = planned(States::F32, 0);
        assert_eq!((saved.missing, fit.need_bytes), (None, before));
        // Those of INT8 are smaller.
        let (before, fit, saved) = planned(States::Full, 4 << 30);
        assert_eq!((saved.missing, fit.need_bytes), (None, fit.plan.reserved_bytes + 1000));
        let more = fit.need_bytes.checked_sub(before).filter(|&more| more > 0).unwrap();
        let weights = fit.plan.owners.iter().find(|owner| owner.owner == "weights").unwrap();
        assert!(weights.bytes > 4_400_000_000 && weights.bytes == weights.peak_bytes);
        let (before, fit, saved) = planned(States::Full, more - 1);
        assert_eq!((saved.missing, fit.need_bytes), (Some(before + more), before));
        assert_eq!(fit.plan.reserved_bytes + 1000, before);
    }
}
