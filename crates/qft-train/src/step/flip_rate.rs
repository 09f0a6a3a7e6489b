//! How far an update moves a weight, in steps of its grid: whether it can land at all, and whether anything is left of
//! the weight after some updates.

use super::groups::GroupFactors;
use crate::TrainOps;
use crate::error::{Result, ensure};
use qft_autograd::Weight;
use qft_llama::model::Model;
use qft_llama::params::Param;
use qft_optim::WeightRounding;
use serde::{Deserialize, Serialize};

/// Stochastic rounding draws 16 bits; below this fraction of a step the probability of a move has fewer than
/// three bits of its own.
const SMALLEST_STOCHASTIC: f64 = 8.0 / 65_536.0;

/// Rounded to nearest, a smaller move is no move.
const SMALLEST_NEAREST: f64 = 0.5;

/// In steps of INT8, of which the largest weight of a row has 127 and a usual one some 30: a few such updates leave
/// nothing of what a model has learned. Fine-tuning moves a weight by 0.002 to 0.2 of them.
const LARGEST: f64 = 4.0;

/// How far an update at some learning rate moves the weights of a model's hybrid matrices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlipRates {
    /// The learning rate.
    pub lr: f64,
    /// Name of each matrix, and the move in steps of its finest grid, by its mean scale; the smallest first.
    pub rates: Vec<(String, f64)>,
    /// The move in steps of INT8, of the row in the middle of all rows.
    pub median_row: f64,
    /// The smallest and the largest move in steps of INT8, by the mean scale of a matrix.
    pub range: (f64, f64),
}

impl FlipRates {
    /// At learning rate `lr`, multiplied for groups. Matrices that are not to move are left out.
    pub fn of(ops: &dyn TrainOps, model: &Model, lr: f64, groups: &GroupFactors) -> Result<Self> {
        let (mut rates, mut rows, mut range) = (Vec::new(), Vec::new(), (f64::INFINITY, 0.0));
        let params = model.params.as_ref().list().into_iter().zip(groups.by_tensor(&model.params));
        for (param, factor) in params.filter(|(_, factor)| *factor > 0.0) {
            let Param::Matrix(matrix) = param else { continue };
            let Weight::Hybrid(weight) = &matrix.weight else { continue };
            let scales = weight.scale.to_vec(ops)?;
            let sum: f64 = scales.iter().map(|&s| f64::from(s)).sum();
            let mean = sum / scales.len().max(1) as f64;
            let factor = f64::from(factor);
            let int8_steps = lr * factor / mean.max(f64::MIN_POSITIVE);
            range = (int8_steps.min(range.0), int8_steps.max(range.1));
            let steps = f64::from(weight.format().residual.steps());
            rates.push((matrix.name.clone(), int8_steps * steps));
            // A row that moves twice as far is as one of half the scale.
            rows.extend(scales.into_iter().map(|scale| f64::from(scale) / factor));
        }
        rates.sort_by(|a, b| a.1.total_cmp(&b.1));
        let middle = rows.len() / 2;
        let median_row = match rows.get(middle) {
            Some(_) => {
                let (_, scale, _) = rows.select_nth_unstable_by(middle, f64::total_cmp);
                lr / scale.max(f64::MIN_POSITIVE)
            }
            None => 0.0,
        };
        Ok(Self { lr, rates, median_row, range })
    }

    /// Refuses a learning rate at which updates cannot land, or ruin the weights.
    ///
    /// Errors: what it does to the weights, and what to do.
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
             or give --insist to train anyway"
        );
        ensure!(
            self.median_row <= LARGEST,
            "--lr: {} moves half of all weights by {:.0} steps of INT8 or more in a single update, where the largest \
             weight of a row has 127: that ruins the model; give a lower one (up to {:.0e} would pass, 1e-5 is usual), \
             or give --insist to train anyway",
            self.lr,
            self.median_row,
            self.lr * LARGEST / self.median_row
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rate: f64, median_row: f64) -> FlipRates {
        let rates = vec![("w".to_owned(), rate)];
        FlipRates { lr: 0.5, rates, median_row, range: (median_row, median_row) }
    }

    #[test]
    fn rates_that_move_nothing_or_everything_are_refused() {
        let told = |rates: FlipRates, rounding| rates.check(rounding).unwrap_err().to_string();
        let (stochastic, nearest) = (WeightRounding::Stochastic, WeightRounding::Nearest);
        rates(0.2, 0.01).check(stochastic).unwrap();
        assert!(told(rates(0.2, 0.01), nearest).contains("lost when rounded to nearest"));
        assert!(told(rates(1e-5, 1e-5), stochastic).contains("finer than the random bits"));
        rates(900.0, 3.9).check(stochastic).unwrap();
        let text = told(rates(9000.0, 40.0), stochastic);
        assert!(text.contains("0.5 moves") && text.contains("40 steps"), "{text}");
        assert!(text.contains("up to 5e-2") && text.contains("--insist"), "{text}");
    }
}
