//! The hyper-parameters of Lion, and how an update reaches a fixed-point weight.

use crate::Error;
use serde::{Deserialize, Serialize};

/// The largest change of a fixed-point weight in one step, 32 times its range: far beyond any sensible step,
/// and small enough that every sum is exact.
pub const MAX_STEP: f32 = 1_048_576.0;

/// What a row's largest weight becomes, in steps of the high plane, when its scale grows. Below 127, so that a
/// weight that keeps growing does not re-round its row at every step.
pub const GROWN_MAX: i32 = 124;

/// Lion: `c = b1 m + (1 - b1) g`, `w -= lr (sign(c) + wd w)`, `m = b2 m + (1 - b2) g`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LionConfig {
    /// Weight of the momentum in the direction of the step.
    pub beta1: f32,
    /// Decay of the momentum.
    pub beta2: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

impl Default for LionConfig {
    /// Betas 0.95 and 0.98, no weight decay.
    fn default() -> Self {
        Self { beta1: 0.95, beta2: 0.98, weight_decay: 0.0 }
    }
}

impl LionConfig {
    /// Checks every hyper-parameter.
    ///
    /// Errors: [`Error::OutOfRange`].
    pub fn check(&self) -> Result<(), Error> {
        for (name, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                let value = f64::from(value);
                return Err(Error::OutOfRange { name, value, expected: "0 <= beta < 1" });
            }
        }
        if !(0.0..=1.0).contains(&self.weight_decay) {
            let value = f64::from(self.weight_decay);
            return Err(Error::OutOfRange { name: "weight decay", value, expected: "0 to 1" });
        }
        Ok(())
    }
}

/// How a changed weight becomes a fixed-point number again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum WeightRounding {
    /// Unbiased: an update of a hundredth of a step moves one weight in a hundred by one step.
    #[default]
    Stochastic,
    /// To nearest: updates of less than half a step are lost. For experiments.
    Nearest,
}
