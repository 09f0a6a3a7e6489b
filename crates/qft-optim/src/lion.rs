//! Lion (Chen et al., arXiv 2302.06675).

use crate::Error;
use crate::rule::{check_betas, check_decay};
use serde::{Deserialize, Serialize};

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
        check_betas(self.beta1, self.beta2)?;
        check_decay(self.weight_decay)
    }

    /// Moves the momentum of a weight by its gradient; returns the direction of the weight's step.
    #[inline(always)]
    pub fn advance(&self, m: &mut f32, g: f32) -> f32 {
        let c = self.beta1 * *m + (1.0 - self.beta1) * g;
        *m = self.beta2 * *m + (1.0 - self.beta2) * g;
        sign(c)
    }
}

/// `1.0`, `-1.0`, or `0.0` for zero and NaN.
#[inline(always)]
pub(crate) fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}
