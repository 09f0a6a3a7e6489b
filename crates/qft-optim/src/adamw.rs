//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) with bias correction.

use crate::Error;
use crate::rule::{check_betas, check_decay};
use serde::{Deserialize, Serialize};

/// The largest direction of a step where moments are quantized; exact ones come to 7.3 at the default betas.
pub const MAX_DIRECTION: f32 = 16.0;

/// AdamW: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`, and `w -= lr (m' / (sqrt(v') + eps) + wd w)`, where `m'` and `v'` are
/// `m / (1 - b1^t)` and `v / (1 - b2^t)` in step `t`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

impl Default for AdamWConfig {
    /// Betas 0.9 and 0.999, eps 1e-8, no weight decay.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamWConfig {
    /// Checks every hyper-parameter.
    ///
    /// Errors: [`Error::OutOfRange`].
    pub fn check(&self) -> Result<(), Error> {
        check_betas(self.beta1, self.beta2)?;
        check_decay(self.weight_decay)?;
        if self.eps > 0.0 && self.eps.is_finite() {
            return Ok(());
        }
        let value = f64::from(self.eps);
        Err(Error::OutOfRange { name: "eps", value, expected: "a finite number above 0" })
    }

    /// The rule in the step after `step` steps.
    pub fn at(&self, step: u32) -> AdamWStep {
        let [first, second] = bias(self, step);
        let unbias = [(1.0 / first) as f32, (1.0 / second) as f32];
        AdamWStep { config: *self, unbias }
    }
}

/// `1 - beta^t` of both moments in the step after `step` steps.
fn bias(config: &AdamWConfig, step: u32) -> [f64; 2] {
    let done = f64::from(step) + 1.0;
    [config.beta1, config.beta2].map(|beta| 1.0 - f64::from(beta).powf(done))
}

/// AdamW in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// The rule.
    pub config: AdamWConfig,
    /// `1 / (1 - b^t)` of both moments: in f64, rounded once.
    pub unbias: [f32; 2],
}

impl AdamWStep {
    /// Moves the moments of a weight by its gradient; returns the direction of the weight's step, not beyond [`MAX_DIRECTION`], and
    /// 0 for NaN.
    #[inline(always)]
    pub fn advance(&self, m: &mut f32, v: &mut f32, g: f32) -> f32 {
        let AdamWConfig { beta1, beta2, eps, .. } = self.config;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * (g * g);
        let direction = (*m * self.unbias[0]) / ((*v * self.unbias[1]).sqrt() + eps);
        let magnitude =
            if direction.abs() < MAX_DIRECTION { direction.abs() } else { MAX_DIRECTION };
        if direction > 0.0 {
            magnitude
        } else if direction < 0.0 {
            -magnitude
        } else {
            0.0
        }
    }
}

/// What AdamW computes once a step for float parameters: in f64, rounded once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWFactors {
    /// Of the weight: `1 - lr wd`, in f32.
    pub keep: f32,
    /// Of the direction: `lr / (1 - b1^t)`.
    pub rate: f32,
    /// Divides the root of the second moment: `sqrt(1 - b2^t)`.
    pub root: f32,
}

impl AdamWFactors {
    /// For the step after `step` steps.
    pub fn new(config: &AdamWConfig, lr: f32, step: u32) -> Self {
        let [first, second] = bias(config, step);
        Self {
            keep: 1.0 - lr * config.weight_decay,
            rate: (f64::from(lr) / first) as f32,
            root: second.sqrt() as f32,
        }
    }
}
