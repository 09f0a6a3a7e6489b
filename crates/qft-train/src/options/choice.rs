//! The words of the command line and of the settings file, as types.

use clap::ValueEnum;
use qft_optim::{MomentumCode as Code, ScheduleKind, WeightRounding};
use serde::{Deserialize, Serialize};

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
    /// INT8 weights with protected features, INT8 momentum, INT8 gradients on a stack: at most 3.4 bytes.
    Paper,
    /// Float weights and states: the reference.
    F32,
}

impl States {
    /// Whether the states of matrices are INT8.
    pub fn is_int8(self) -> bool {
        self != Self::F32
    }
}

/// The rule by which weights change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Lion.
    #[default]
    Lion,
    /// AdamW; only with float states.
    #[value(name = "adamw")]
    #[serde(rename = "adamw")]
    AdamW,
}

/// In which numbers linear layers multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeKind {
    /// INT8 products.
    Int8,
    /// Float products.
    Float,
}

impl From<ComputeKind> for qft_autograd::Compute {
    fn from(kind: ComputeKind) -> Self {
        match kind {
            ComputeKind::Int8 => Self::Int8,
            ComputeKind::Float => Self::Float,
        }
    }
}

/// The shape of the learning rate over the run, after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// Stays at its largest.
    Constant,
    /// Falls along a line.
    Linear,
    /// Falls along half a cosine.
    #[default]
    Cosine,
}

impl From<LrSchedule> for ScheduleKind {
    fn from(schedule: LrSchedule) -> Self {
        match schedule {
            LrSchedule::Constant => Self::Constant,
            LrSchedule::Linear => Self::Linear,
            LrSchedule::Cosine => Self::Cosine,
        }
    }
}

/// What the backward pass computes again instead of keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecomputeChoice {
    /// Decided by the model and the memory there is.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// All of a block but its input.
    Block,
}

/// What happens to gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientChoice {
    /// Each updates its weights at once, and is gone.
    Released,
    /// All are kept in INT8, then applied: exact clipping.
    Stored,
}

/// How a momentum value becomes an INT8 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentumChoice {
    /// Square-root companding.
    #[default]
    Sqrt,
    /// Uniform.
    Linear,
}

impl From<MomentumChoice> for Code {
    fn from(choice: MomentumChoice) -> Self {
        match choice {
            MomentumChoice::Sqrt => Self::Sqrt,
            MomentumChoice::Linear => Self::Linear,
        }
    }
}

/// How a changed weight is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundingChoice {
    /// Up or down by chance, unbiased.
    #[default]
    Stochastic,
    /// To nearest, which loses small updates; for experiments.
    Nearest,
}

impl From<RoundingChoice> for WeightRounding {
    fn from(choice: RoundingChoice) -> Self {
        match choice {
            RoundingChoice::Stochastic => Self::Stochastic,
            RoundingChoice::Nearest => Self::Nearest,
        }
    }
}

/// What the records of a data file look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// Plain text by the file's name, records by the fields of the first one.
    #[default]
    Auto,
    /// Plain text: one long document.
    Text,
    /// Records with `text`: a document each.
    JsonlText,
    /// Records with `prompt` and `completion`.
    PromptCompletion,
    /// Records with `instruction`, `input` and `output`.
    Alpaca,
    /// Records with `conversations` of `from` and `value`.
    Sharegpt,
    /// Records with `messages` of `role` and `content`.
    Messages,
}

impl DataFormat {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::JsonlText => "jsonl-text",
            Self::PromptCompletion => "prompt-completion",
            Self::Alpaca => "alpaca",
            Self::Sharegpt => "sharegpt",
            Self::Messages => "messages",
        }
    }
}

/// Which tokens count in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// Those of completions and of the assistant's turns, and the token that ends them.
    #[default]
    Completion,
    /// All.
    All,
}
