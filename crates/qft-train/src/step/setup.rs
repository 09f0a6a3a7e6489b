//! How a model is stored, computed with and updated.

use super::TrainOps;
use super::optimizer::OptimizerConfig;
use super::trainer::{GradientMode, Trainer};
use crate::error::Result;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::pass::PassOptions;

/// Everything that decides how a model is stored and trained, apart from its data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// How matrices are stored.
    pub format: WeightFormat,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// How passes compute.
    pub pass: PassOptions,
    /// What happens to gradients.
    pub gradients: GradientMode,
}

impl Setup {
    /// A trainer of `model` at step 0.
    pub fn trainer(&self, ops: &dyn TrainOps, model: Model) -> Result<Trainer> {
        Trainer::new(ops, model, self.optimizer, self.pass, self.gradients)
    }
}
