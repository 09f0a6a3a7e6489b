//! How training states are stored and computed with.

use super::training::OptimizerKind;
use super::value::number;
use crate::error::{Result, ensure};
use crate::step::trainer::GradientMode;
use clap::ValueEnum;
use qft_autograd::Products;
use qft_llama::model::WeightFormat;
use qft_llama::pass::Recompute;
use qft_llama::stream::StreamFormat;
use qft_optim::{MomentCode, WeightRounding};
use qft_quant::{HybridFormat, Residual};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest fraction of protected weights.
pub const MAX_PROTECTED: f64 = qft_quant::hybrid::MAX_PROTECTED_FRACTION;

/// How weights are stored and multiplied, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct WeightArgs {
    /// How weights and training states are stored [default: full; f32 for eval;
    /// INT8 weights alone, none of them protected, for generate and chat]
    #[arg(long, value_enum, help_heading = "States")]
    pub states: Option<States>,
    /// Arithmetic of the linear layers: int8, float, or for experiments those of their products that are to be in INT8,
    /// forward, input-gradient and weight-gradient, joined by + [default: int8, or float with --states f32]
    #[arg(long, value_name = "NUMBERS", help_heading = "States")]
    pub compute: Option<Products>,
    /// Fraction of the weights to protect, that is, to keep in bf16: 0 to 0.05 [default: depends on --states]
    #[arg(
        long,
        alias = "outliers",
        value_name = "FRACTION",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "States"
    )]
    pub protected: Option<f64>,
    /// Mix the channels of INT8 weights and inputs, so that none stands out; false for experiments [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "States"
    )]
    pub rotation: Option<bool>,
}

/// What the backward pass keeps, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct BackwardArgs {
    /// What the backward pass recomputes instead of keeping [default: auto]
    #[arg(long, value_enum, help_heading = "States")]
    pub recompute: Option<RecomputeChoice>,
    /// What happens to gradients [default: released, or stored with --states paper]
    #[arg(long, value_enum, help_heading = "States")]
    pub gradients: Option<GradientMode>,
}

/// How INT8 states change, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UpdateArgs {
    /// Encoding of the momentum, in 8 bits or in 4 [default: sqrt, or sqrt4 with --states tiny]
    #[arg(long, value_enum, help_heading = "States")]
    pub momentum_code: Option<MomentCode>,
    /// Rounding of updated weights; nearest is for experiments [default: stochastic]
    #[arg(long, value_enum, help_heading = "States")]
    pub rounding: Option<WeightRounding>,
}

/// All that can be asked of the states.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateArgs {
    /// How weights are stored and multiplied.
    pub weights: WeightArgs,
    /// What the backward pass keeps.
    pub backward: BackwardArgs,
    /// How INT8 states change.
    pub update: UpdateArgs,
}

/// How training states are stored and computed with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StateOptions {
    /// The mode.
    pub states: States,
    /// Numbers of the products of linear layers.
    pub compute: Products,
    /// Fraction of protected weights; absent: as `states` has it.
    pub protected: Option<f64>,
    /// Whether INT8 weights and inputs are [rotated](qft_tensor::rotation).
    pub rotation: bool,
    /// What is computed again.
    pub recompute: RecomputeChoice,
    /// What happens to gradients.
    pub gradients: GradientMode,
    /// Code of the momentum, or of adamw's first moment; absent: as `states` has it.
    pub momentum_code: Option<MomentCode>,
    /// Rounding of updated weights.
    pub rounding: WeightRounding,
}

impl StateArgs {
    /// Fills in the defaults and checks everything, for states that `optimizer` updates.
    ///
    /// Errors: a value out of its range; options that exclude each other.
    pub fn resolve(self, optimizer: OptimizerKind) -> Result<StateOptions> {
        let WeightArgs { states, compute, protected, rotation } = self.weights;
        let BackwardArgs { recompute, gradients } = self.backward;
        let UpdateArgs { momentum_code, rounding } = self.update;
        let states = states.unwrap_or_default();
        if let Some(protected) = protected {
            ensure!(
                (0.0..=MAX_PROTECTED).contains(&protected),
                "--protected: {protected} is not a fraction from 0 to {MAX_PROTECTED}; 0.01 is 1 %"
            );
        }
        if !states.is_int8() {
            for (set, what) in [
                (gradients == Some(GradientMode::Stored), "--gradients stored"),
                (compute.is_some_and(|products| products != Products::FLOAT), "--compute"),
                (protected.is_some_and(|fraction| fraction > 0.0), "--protected"),
                (rotation == Some(true), "--rotation"),
                (momentum_code.is_some(), "--momentum-code"),
                (rounding.is_some(), "--rounding"),
            ] {
                ensure!(
                    !set,
                    "{what} is about INT8 states, and --states f32 has none; leave it out, or choose \
                     --states full, balanced, compact, tiny or paper"
                );
            }
        }
        let code = momentum_code.unwrap_or(states.momentum_code());
        ensure!(
            optimizer == OptimizerKind::Lion || code == MomentCode::Sqrt,
            "--optimizer adamw: its moments are stored in 8 bits, in codes of their own; leave out --momentum-code{}",
            if states == States::Tiny { ", and choose --states compact" } else { "" }
        );
        Ok(StateOptions {
            states,
            compute: compute.unwrap_or(states.compute()),
            protected,
            rotation: rotation.unwrap_or(states.is_int8()),
            recompute: recompute.unwrap_or_default(),
            gradients: gradients.unwrap_or(states.gradients()),
            momentum_code,
            rounding: rounding.unwrap_or_default(),
        })
    }
}

impl WeightArgs {
    /// For commands that only read the weights: f32 unless asked for otherwise.
    ///
    /// Errors: as [`StateArgs::resolve`].
    pub fn resolve_reading(self) -> Result<StateOptions> {
        let weights = Self { states: self.states.or(Some(States::F32)), ..self };
        StateArgs { weights, ..StateArgs::default() }.resolve(OptimizerKind::Lion)
    }

    /// For commands that let a model write, whose speed is that of reading its weights: INT8 alone unless asked for
    /// otherwise, as the products of training read them.
    ///
    /// Errors: as [`StateArgs::resolve`].
    pub fn resolve_writing(self) -> Result<StateOptions> {
        let (states, protected) = match self.states {
            None => (States::Compact, self.protected.or(Some(0.0))),
            Some(states) => (states, self.protected),
        };
        let weights = Self { states: Some(states), protected, ..self };
        StateArgs { weights, ..StateArgs::default() }.resolve(OptimizerKind::Lion)
    }
}

/// How the states of training are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum States {
    /// 16-bit weights in two INT8 planes, INT8 momentum: at most 3.15 bytes per parameter.
    #[default]
    Full,
    /// 12-bit weights, INT8 momentum: at most 2.65 bytes per parameter.
    Balanced,
    /// INT8 weights, INT8 momentum: at most 2.15 bytes per parameter.
    Compact,
    /// INT8 weights, 4-bit momentum: at most 1.6 bytes per parameter.
    Tiny,
    /// INT8 weights, some of them protected, INT8 momentum, INT8 gradients on a stack: at most 3.4 bytes.
    Paper,
    /// Float weights and states: the reference.
    F32,
}

impl States {
    /// What is proposed where a run does not fit, from the most bytes to the fewest.
    pub const SMALLER: [Self; 4] = [Self::Full, Self::Balanced, Self::Compact, Self::Tiny];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Balanced => "balanced",
            Self::Compact => "compact",
            Self::Tiny => "tiny",
            Self::Paper => "paper",
            Self::F32 => "f32",
        }
    }

    /// Whether the states of matrices are INT8.
    pub fn is_int8(self) -> bool {
        self != Self::F32
    }

    /// Fraction of protected weights unless the user says otherwise.
    pub const fn protected_fraction(self) -> f64 {
        match self {
            Self::Full | Self::Balanced | Self::F32 => 0.0,
            Self::Compact | Self::Tiny | Self::Paper => 0.01,
        }
    }

    /// How matrices are stored.
    pub fn format(self, protected_fraction: f64, rotated: bool) -> WeightFormat {
        let residual = match self {
            Self::Full => Residual::Bits8,
            Self::Balanced => Residual::Bits4,
            Self::Compact | Self::Tiny | Self::Paper => Residual::None,
            Self::F32 => return WeightFormat::Float,
        };
        WeightFormat::Hybrid(HybridFormat { residual, protected_fraction, rotated })
    }

    /// The code of the momentum unless the user says otherwise.
    pub const fn momentum_code(self) -> MomentCode {
        match self {
            Self::Tiny => MomentCode::Sqrt4,
            Self::Full | Self::Balanced | Self::Compact | Self::Paper | Self::F32 => {
                MomentCode::Sqrt
            }
        }
    }

    /// The format of the residual stream: bf16 beside INT8, f32 in the reference.
    pub fn stream(self) -> StreamFormat {
        if self.is_int8() { StreamFormat::Bf16 } else { StreamFormat::F32 }
    }

    fn compute(self) -> Products {
        if self.is_int8() { Products::INT8 } else { Products::FLOAT }
    }

    fn gradients(self) -> GradientMode {
        match self {
            Self::Paper => GradientMode::Stored,
            _ => GradientMode::Released,
        }
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the backward pass computes again instead of keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecomputeChoice {
    /// Decided by the model and the free memory.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// Everything in a block but its input.
    Block,
}

impl RecomputeChoice {
    /// What to try, best first: the one that was asked for, or both.
    pub fn candidates(self) -> &'static [Recompute] {
        match self {
            Self::Auto => &[Recompute::None, Recompute::Block],
            Self::None => &[Recompute::None],
            Self::Block => &[Recompute::Block],
        }
    }
}
