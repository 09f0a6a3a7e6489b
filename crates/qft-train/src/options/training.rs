//! How long a run is, and how its weights change.

use super::group::{GroupRate, GroupRates};
use super::value::{number, whole};
use crate::error::{Result, bail, ensure};
use clap::ValueEnum;
use qft_optim::{AdamWConfig, LionConfig, Rule, Schedule, ScheduleKind};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The fall of a WSD schedule, as a fraction of the run.
const DEFAULT_DECAY: f64 = 0.2;

/// The rule of the optimizer, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RuleArgs {
    /// Optimizer; adamw takes one byte more for each parameter than lion [default: lion]
    #[arg(long, value_enum, help_heading = "Training")]
    pub optimizer: Option<OptimizerKind>,
}

/// How long a run is and how its weights change, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TrainingArgs {
    /// Optimizer steps
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true, help_heading = "Training")]
    pub steps: Option<u64>,
    /// Passes over the data; may be a fraction [default: 1]
    #[arg(
        long,
        value_name = "X",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub epochs: Option<f64>,
    /// The rule of the optimizer.
    #[command(flatten)]
    #[serde(flatten)]
    pub rule: RuleArgs,
    /// Largest learning rate [default: 1e-5 for lion, 2e-5 for adamw]
    #[arg(
        long,
        value_name = "RATE",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub lr: Option<f64>,
    /// Another largest learning rate for a group of parameters, as norms=1e-4: embeddings, head, norms or biases; it follows
    /// the same schedule, and 0 leaves the group as it is; may be given more than once
    #[arg(long, value_name = "GROUP=RATE", help_heading = "Training")]
    pub group_lr: Vec<GroupRate>,
    /// Schedule of the learning rate [default: cosine]
    #[arg(long, value_enum, help_heading = "Training")]
    pub schedule: Option<ScheduleKind>,
    /// Where the schedule ends, as a fraction of the largest learning rate [default: 0]
    #[arg(
        long,
        value_name = "RATIO",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub min_lr_ratio: Option<f64>,
    /// Warm-up, as a fraction of the run (0.03) or in steps (20) [default: 0.03]
    #[arg(
        long,
        value_name = "FRACTION|STEPS",
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub warmup: Option<Span>,
    /// The fall at the end of --schedule wsd, as a fraction of the run (0.2) or in steps (200) [default: 0.2]
    #[arg(
        long,
        value_name = "FRACTION|STEPS",
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub decay: Option<Span>,
    /// Decoupled weight decay [default: 0]
    #[arg(
        long,
        value_name = "X",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub weight_decay: Option<f64>,
    /// Weight of lion's momentum in an update, or decay of adamw's first moment [default: 0.95 for lion, 0.9 for adamw]
    #[arg(
        long,
        value_name = "X",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub beta1: Option<f64>,
    /// Decay of lion's momentum, or of adamw's second moment [default: 0.98 for lion, 0.999 for adamw]
    #[arg(
        long,
        value_name = "X",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub beta2: Option<f64>,
    /// Clip gradients to this global norm; with released gradients, by the norm of the previous step
    /// [default: no clipping]
    #[arg(
        long,
        value_name = "NORM",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Training"
    )]
    pub max_grad_norm: Option<f64>,
    /// Seed for everything random [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true, help_heading = "Training")]
    pub seed: Option<u64>,
    /// Train even at a learning rate that moves no weight or ruins the model
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Training"
    )]
    pub insist: Option<bool>,
}

/// How long a run is and how its weights change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingOptions {
    /// How long the run is.
    pub length: Length,
    /// The optimizer.
    pub optimizer: OptimizerOptions,
    /// Seed of the run.
    pub seed: u64,
    /// Whether to train at a learning rate that moves nothing or ruins the model.
    pub insist: bool,
}

/// Hyper-parameters of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerOptions {
    /// The rule.
    pub kind: OptimizerKind,
    /// Largest learning rate.
    pub lr: f64,
    /// Those of groups of parameters.
    pub group_lr: GroupRates,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Weight of the momentum (first moment).
    pub beta1: f32,
    /// Decay of the momentum (second moment of AdamW).
    pub beta2: f32,
    /// Schedule after the warm-up.
    pub schedule: ScheduleKind,
    /// Where the schedule ends, as a fraction of `lr`.
    pub min_lr_ratio: f64,
    /// Warm-up.
    pub warmup: Span,
    /// The fall at the end of a WSD schedule, if given.
    pub decay: Option<Span>,
    /// Largest global norm of the gradient.
    pub max_grad_norm: Option<f64>,
}

impl TrainingArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range; options that exclude each other.
    pub fn resolve(self) -> Result<TrainingOptions> {
        let length = Length::resolve(self.steps, self.epochs)?;
        let (seed, insist) = (self.seed.unwrap_or(0), self.insist.unwrap_or(false));
        Ok(TrainingOptions { length, optimizer: self.optimizer(length)?, seed, insist })
    }

    fn optimizer(self, length: Length) -> Result<OptimizerOptions> {
        let kind = self.rule.optimizer.unwrap_or_default();
        let (lr, beta1, beta2) = match kind {
            OptimizerKind::Lion => (1e-5, 0.95, 0.98),
            OptimizerKind::AdamW => (2e-5, 0.9, 0.999),
        };
        let lr = self.lr.unwrap_or(lr);
        ensure!(
            lr > 0.0 && lr <= 1.0,
            "--lr: {lr} is out of range; give a number above 0 and at most 1, such as 1e-5"
        );
        let (beta1, beta2) = (self.beta1.unwrap_or(beta1), self.beta2.unwrap_or(beta2));
        for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
            // Checked as the optimizer will see it: a number just below 1 may round up to it.
            ensure!(
                (0.0..1.0).contains(&beta) && (beta as f32) < 1.0,
                "--{name}: {beta} is out of range; give at least 0 and less than 1, or leave it out for the default"
            );
        }
        let weight_decay = self.weight_decay.unwrap_or(0.0);
        ensure!(
            (0.0..=1.0).contains(&weight_decay),
            "--weight-decay: {weight_decay} is out of range; give 0 to 1"
        );
        let min_lr_ratio = self.min_lr_ratio.unwrap_or(0.0);
        ensure!(
            (0.0..=1.0).contains(&min_lr_ratio),
            "--min-lr-ratio: {min_lr_ratio} is out of range; give 0 to 1"
        );
        if let Some(norm) = self.max_grad_norm {
            ensure!(
                norm > 0.0,
                "--max-grad-norm: {norm} is not above 0; leave it out to turn clipping off"
            );
        }
        let warmup = self.warmup.unwrap_or(Span::Fraction(0.03));
        if let Length::Steps(steps) = length {
            warmup.check("warmup", steps)?;
        }
        let schedule = self.schedule.unwrap_or_default();
        ensure!(
            self.decay.is_none() || schedule == ScheduleKind::Wsd,
            "--decay is the fall at the end of --schedule wsd; give that schedule, or leave it out"
        );
        Ok(OptimizerOptions {
            kind,
            lr,
            group_lr: GroupRates::resolve(&self.group_lr)?,
            weight_decay: weight_decay as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            schedule,
            min_lr_ratio,
            warmup,
            decay: self.decay,
            max_grad_norm: self.max_grad_norm,
        })
    }
}

impl OptimizerOptions {
    /// A rule for plans, where nothing but its memory matters.
    pub fn for_plan(kind: OptimizerKind) -> Self {
        Self {
            kind,
            lr: 0.0,
            group_lr: GroupRates::default(),
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.99,
            schedule: ScheduleKind::Constant,
            min_lr_ratio: 1.0,
            warmup: Span::Steps(0),
            decay: None,
            max_grad_norm: None,
        }
    }

    /// The learning rate of each step of a run of `total` steps.
    ///
    /// Errors: a warm-up or a decay that is longer than the run.
    pub fn schedule(&self, total: u64) -> Result<Schedule> {
        self.warmup.check("warmup", total)?;
        let warmup = self.warmup.steps(total);
        let decay = match (self.schedule, self.decay) {
            (ScheduleKind::Wsd, decay) => decay.unwrap_or(Span::Fraction(DEFAULT_DECAY)),
            _ => Span::Steps(0),
        };
        decay.check("decay", total)?;
        let decay = decay.steps(total);
        ensure!(
            warmup.saturating_add(decay) <= total,
            "--warmup and --decay: {warmup} and {decay} steps are more than the {total} of the run; give less of one"
        );
        let (kind, peak, floor) = (self.schedule, self.lr, self.min_lr_ratio);
        Ok(Schedule { kind, peak, floor, warmup, decay, total })
    }

    /// The update rule.
    pub(super) fn rule(&self) -> Rule {
        let Self { beta1, beta2, weight_decay, .. } = *self;
        match self.kind {
            OptimizerKind::Lion => Rule::Lion(LionConfig { beta1, beta2, weight_decay }),
            OptimizerKind::AdamW => {
                Rule::AdamW(AdamWConfig { beta1, beta2, weight_decay, ..AdamWConfig::default() })
            }
        }
    }
}

/// The rule by which weights change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Lion.
    #[default]
    Lion,
    /// AdamW, with two moments.
    #[value(name = "adamw")]
    #[serde(rename = "adamw")]
    AdamW,
}

/// A part of a run, as long as the learning rate rises or falls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub enum Span {
    /// For this many steps.
    Steps(u64),
    /// For this fraction of all steps.
    Fraction(f64),
}

impl Span {
    /// Its steps in a run of `total` steps.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Fraction(fraction) => (fraction * total as f64).round() as u64,
        }
    }

    fn check(self, name: &str, total: u64) -> Result<()> {
        let steps = self.steps(total);
        ensure!(
            steps <= total,
            "--{name}: {steps} steps are more than the run's {total}; \
             give fewer, or a fraction such as 0.03"
        );
        Ok(())
    }
}

impl TryFrom<f64> for Span {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        match value {
            v if (0.0..1.0).contains(&v) => Ok(Self::Fraction(v)),
            v if v >= 1.0 && v <= u32::MAX.into() && v.fract() == 0.0 => Ok(Self::Steps(v as u64)),
            v => Err(format!(
                "{v} is neither a fraction of the run (from 0 to below 1) nor a number of steps; \
                 give 0.03 for 3 % of the run or 20 for 20 steps"
            )),
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value: f64 = text.parse().map_err(|_| "expected a number".to_string())?;
        Self::try_from(value)
    }
}

impl From<Span> for f64 {
    fn from(span: Span) -> f64 {
        match span {
            Span::Steps(steps) => steps as f64,
            Span::Fraction(fraction) => fraction,
        }
    }
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// Optimizer steps, each of full size; the data is gone through as often as that takes.
    Steps(u64),
    /// Passes over the data; may end within one. The last step takes what is left.
    Epochs(f64),
}

impl Length {
    fn resolve(steps: Option<u64>, epochs: Option<f64>) -> Result<Self> {
        match (steps, epochs) {
            (Some(_), Some(_)) => {
                bail!("--steps and --epochs cannot be used together; give only one")
            }
            (Some(0), None) => {
                bail!(
                    "--steps is 0; give at least 1, or use `qft eval` to evaluate without training"
                )
            }
            (Some(steps), None) if steps > u32::MAX.into() => {
                bail!("--steps: {steps} is beyond the limit of {}", u32::MAX)
            }
            (Some(steps), None) => Ok(Self::Steps(steps)),
            (None, epochs) => {
                let epochs = epochs.unwrap_or(1.0);
                ensure!(
                    epochs > 0.0 && epochs <= 1e6,
                    "--epochs: {epochs} is out of range; give a number above 0, at most a million"
                );
                Ok(Self::Epochs(epochs))
            }
        }
    }

    /// Sequences that the run takes, `per_pass` in a pass and `per_step` in a full step. At least 1.
    pub fn sequences(self, per_pass: f64, per_step: usize) -> u64 {
        match self {
            Self::Steps(steps) => steps.saturating_mul(per_step as u64),
            Self::Epochs(epochs) => {
                let taken = epochs * per_pass;
                // A rounding error must not add a sequence.
                ((taken * (1.0 - 1e-12)).ceil() as u64).max(1)
            }
        }
    }

    /// Optimizer steps, at `per_pass` sequences in a pass and `per_step` in a step. At least 1.
    pub fn steps(self, per_pass: f64, per_step: usize) -> u64 {
        self.sequences(per_pass, per_step).div_ceil(per_step.max(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_is_a_fraction_below_one_and_steps_from_one() {
        assert_eq!("0.03".parse(), Ok(Span::Fraction(0.03)));
        assert_eq!("20".parse(), Ok(Span::Steps(20)));
        assert_eq!("0".parse::<Span>().map(|span| span.steps(100)), Ok(0));
        assert_eq!(Span::Fraction(0.03).steps(1000), 30);
        for bad in ["-1", "1.5", "nan", "inf", "x"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn epochs_count_every_sequence_once() {
        for (epochs, sequences, per_step, taken, steps) in [
            (1.0, 8, 4, 8, 2),
            (1.0, 9, 4, 9, 3),
            (0.5, 8, 4, 4, 1),
            (3.0, 1, 4, 3, 1),
            (0.1, 30, 1, 3, 3),
            (1.0, 5, 64, 5, 1),
            (2.0, 5, 4, 10, 3),
        ] {
            let length = Length::Epochs(epochs);
            let sequences = f64::from(sequences);
            let got = (length.sequences(sequences, per_step), length.steps(sequences, per_step));
            assert_eq!(got, (taken, steps), "{epochs} {sequences}");
        }
        assert_eq!(Length::Steps(7).steps(1.0, 1), 7);
        assert_eq!((Length::Steps(7).sequences(2.0, 4), Length::Steps(7).steps(2.0, 4)), (28, 7));
    }
}
