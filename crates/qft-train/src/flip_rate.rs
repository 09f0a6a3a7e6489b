//! How far an update moves a weight, in steps of its fixed-point grid: whether it can land at all.

use crate::TrainOps;
use anyhow::{Result, ensure};
use qft_autograd::Weight;
use qft_llama::model::{Model, Param};
use qft_optim::WeightRounding;

/// Stochastic rounding draws 16 bits; below this fraction of a step the probability of a move has fewer than
/// three bits of its own.
const SMALLEST_STOCHASTIC: f64 = 8.0 / 65_536.0;

/// Rounded to nearest, a smaller move is no move.
const SMALLEST_NEAREST: f64 = 0.5;

/// The rates `F lr / s` of a model's hybrid matrices.
#[derive(Debug, Clone, PartialEq)]
pub struct FlipRates {
    /// Name and rate per matrix, smallest rate first.
    pub rates: Vec<(String, f64)>,
}

impl FlipRates {
    /// At learning rate `lr`, by the mean scale of each matrix.
    pub fn of(ops: &dyn TrainOps, model: &Model, lr: f64) -> Result<Self> {
        let mut rates = Vec::new();
        for (param, spec) in model.params().iter().zip(model.config.tensors()) {
            let Param::Matrix(matrix) = param else { continue };
            let Weight::Hybrid(weight) = &matrix.weight else { continue };
            let scales = weight.scale.to_vec(ops)?;
            let sum: f64 = scales.iter().map(|&s| f64::from(s)).sum();
            let mean = sum / scales.len().max(1) as f64;
            let steps = f64::from(weight.format().residual.steps());
            rates.push((spec.name, lr * steps / mean.max(f64::MIN_POSITIVE)));
        }
        rates.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok(Self { rates })
    }

    /// The smallest, the median and the largest rate.
    pub fn range(&self) -> Option<(f64, f64, f64)> {
        let rates = &self.rates;
        Some((rates.first()?.1, rates[rates.len() / 2].1, rates.last()?.1))
    }

    /// Refuses a setting in which updates cannot land.
    ///
    /// Errors: the matrix with the smallest rate, and what to do.
    pub fn check(&self, rounding: WeightRounding) -> Result<()> {
        let Some((name, rate)) = self.rates.first() else { return Ok(()) };
        let (smallest, why) = match rounding {
            WeightRounding::Stochastic => (SMALLEST_STOCHASTIC, "is finer than the random bits"),
            WeightRounding::Nearest => (SMALLEST_NEAREST, "is lost when rounded to nearest"),
        };
        ensure!(
            *rate >= smallest,
            "--lr: an update moves the weights of {name} by {rate:.2e} of a step, which {why} \
             (at least {smallest:.2e}); use a larger --lr, --rounding stochastic, or states with a residual, \
             or --insist to train nevertheless"
        );
        Ok(())
    }
}
