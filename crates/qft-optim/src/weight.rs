//! How an update reaches a fixed-point weight.

use serde::{Deserialize, Serialize};

/// The largest change of a fixed-point weight in one step, 32 times its range: far beyond any sensible step,
/// and small enough that every sum is exact.
pub const MAX_STEP: f32 = 1_048_576.0;

/// What a row's largest weight becomes, in steps of the high plane, when its scale grows. Below 127, so that a
/// weight that keeps growing does not re-round its row at every step.
pub const GROWN_MAX: i32 = 124;

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
