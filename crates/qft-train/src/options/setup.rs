//! What the options mean for model, optimizer and passes.

use super::states::StateOptions;
use super::training::OptimizerOptions;
use crate::step::optimizer::OptimizerConfig;
use crate::step::setup::Setup;
use qft_llama::model::WeightFormat;
use qft_llama::pass::{PassOptions, Recompute};
use qft_optim::MomentCode;

impl StateOptions {
    /// The fraction of protected weights: as asked, or the default.
    pub fn protected_fraction(&self) -> f64 {
        self.protected.unwrap_or(self.states.protected_fraction())
    }

    /// The code of the first moment: as asked, or the default.
    pub fn momentum_code(&self) -> MomentCode {
        self.momentum_code.unwrap_or(self.states.momentum_code())
    }

    /// How matrices are stored.
    pub fn format(&self) -> WeightFormat {
        self.states.format(self.protected_fraction(), self.rotation)
    }

    /// How passes compute, with recomputation as given: `auto` must have been decided.
    pub fn pass(&self, seed: u64, recompute: Recompute) -> PassOptions {
        PassOptions {
            compute: self.compute,
            recompute,
            stream: self.states.stream(),
            seed,
            step: 0,
        }
    }

    /// Everything that decides how a model is stored and trained.
    pub fn setup(&self, optimizer: &OptimizerOptions, seed: u64, recompute: Recompute) -> Setup {
        Setup {
            format: self.format(),
            optimizer: OptimizerConfig {
                rule: optimizer.rule(),
                momentum: self.momentum_code(),
                rounding: self.rounding,
                groups: optimizer.group_lr.factors(optimizer.lr),
                max_grad_norm: optimizer.max_grad_norm.unwrap_or(f64::INFINITY),
            },
            pass: self.pass(seed, recompute),
            gradients: self.gradients,
        }
    }
}
