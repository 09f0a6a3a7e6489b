//! Optimizers with float states: for norm gains, and as the reference of every comparison.

use crate::{Error, LionConfig};
use qft_tensor::{Buffer, Device, Owner};
use serde::{Deserialize, Serialize};

/// The update rule of a float parameter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum FloatRule {
    /// Lion.
    Lion(LionConfig),
    /// AdamW (Loshchilov and Hutter, arXiv 1711.05101) with bias correction.
    AdamW {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Decoupled weight decay.
        weight_decay: f32,
    },
}

impl FloatRule {
    /// The same rule without weight decay, for norm gains.
    pub fn without_decay(self) -> Self {
        match self {
            Self::Lion(config) => Self::Lion(LionConfig { weight_decay: 0.0, ..config }),
            Self::AdamW { beta1, beta2, eps, .. } => {
                Self::AdamW { beta1, beta2, eps, weight_decay: 0.0 }
            }
        }
    }
}

/// What AdamW computes once a step: in f64, rounded once.
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
    pub fn new((beta1, beta2): (f32, f32), weight_decay: f32, lr: f32, step: u32) -> Self {
        let done = f64::from(step) + 1.0;
        let bias = |beta: f32| 1.0 - f64::from(beta).powf(done);
        Self {
            keep: 1.0 - lr * weight_decay,
            rate: (f64::from(lr) / bias(beta1)) as f32,
            root: bias(beta2).sqrt() as f32,
        }
    }
}

/// Moments of a float parameter, f32.
#[derive(Debug)]
pub struct FloatState {
    /// First moment (the momentum of Lion), `[len]`.
    pub m: Buffer<f32>,
    /// Second moment `[len]`; absent for Lion.
    pub v: Option<Buffer<f32>>,
}

impl FloatState {
    /// Moments of zero.
    ///
    /// Errors: [`qft_tensor::Error::OutOfMemory`].
    pub fn zeros(device: &dyn Device, len: usize, rule: FloatRule) -> Result<Self, Error> {
        let v = match rule {
            FloatRule::Lion(_) => None,
            FloatRule::AdamW { .. } => {
                Some(Buffer::zeros(device, Owner::Momentum, "second moment", len)?)
            }
        };
        Ok(Self { m: Buffer::zeros(device, Owner::Momentum, "first moment", len)?, v })
    }
}
