//! The rule of an optimizer: what it remembers of a gradient, and in which direction it moves a weight.

use crate::{AdamWConfig, AdamWStep, Error, LionConfig, MomentCode};
use serde::{Deserialize, Serialize};

/// The rule by which weights change, however they and the moments are stored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum Rule {
    /// Lion: one moment, the momentum.
    Lion(LionConfig),
    /// AdamW: two moments.
    AdamW(AdamWConfig),
}

impl Rule {
    /// Moments that it keeps of each weight.
    pub const fn moments(self) -> usize {
        match self {
            Self::Lion(_) => 1,
            Self::AdamW(_) => 2,
        }
    }

    /// The codes that the first moment of a hybrid matrix may have.
    pub const fn codes(self) -> &'static [MomentCode] {
        match self {
            Self::Lion(_) => &[MomentCode::Sqrt, MomentCode::Linear, MomentCode::Sqrt4],
            Self::AdamW(_) => &[MomentCode::Sqrt],
        }
    }

    /// Decoupled weight decay.
    pub const fn weight_decay(self) -> f32 {
        match self {
            Self::Lion(config) => config.weight_decay,
            Self::AdamW(config) => config.weight_decay,
        }
    }

    /// The same rule without weight decay, for norm gains.
    pub fn without_decay(self) -> Self {
        match self {
            Self::Lion(config) => Self::Lion(LionConfig { weight_decay: 0.0, ..config }),
            Self::AdamW(config) => Self::AdamW(AdamWConfig { weight_decay: 0.0, ..config }),
        }
    }

    /// Checks every hyper-parameter.
    ///
    /// Errors: [`Error::OutOfRange`].
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Lion(config) => config.check(),
            Self::AdamW(config) => config.check(),
        }
    }

    /// The rule in the step after `step` steps.
    pub fn at(&self, step: u32) -> RuleStep {
        match self {
            Self::Lion(config) => RuleStep::Lion(*config),
            Self::AdamW(config) => RuleStep::AdamW(config.at(step)),
        }
    }
}

/// A rule in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RuleStep {
    /// Lion, which is the same in all.
    Lion(LionConfig),
    /// AdamW.
    AdamW(AdamWStep),
}

impl RuleStep {
    /// Moves the moments of a weight by its gradient; returns the direction of the weight's step. Lion leaves the second moment
    /// alone.
    pub fn advance(&self, [m, v]: [&mut f32; 2], g: f32) -> f32 {
        match self {
            Self::Lion(rule) => rule.advance(m, g),
            Self::AdamW(rule) => rule.advance(m, v, g),
        }
    }
}

pub(crate) fn check_betas(beta1: f32, beta2: f32) -> Result<(), Error> {
    for (name, value) in [("beta1", beta1), ("beta2", beta2)] {
        if !(0.0..1.0).contains(&value) {
            let value = f64::from(value);
            return Err(Error::OutOfRange { name, value, expected: "0 <= beta < 1" });
        }
    }
    Ok(())
}

pub(crate) fn check_decay(weight_decay: f32) -> Result<(), Error> {
    if (0.0..=1.0).contains(&weight_decay) {
        return Ok(());
    }
    let value = f64::from(weight_decay);
    Err(Error::OutOfRange { name: "weight decay", value, expected: "0 to 1" })
}
