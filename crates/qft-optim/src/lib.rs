//! Quantized Lion and AdamW.
//!
//! A [`Rule`] says in which direction a gradient moves a weight, and keeps one moment or two to know it; here these are in 8 or
//! 4 bits ([`Moment`]), and the weights are fixed-point numbers ([`qft_quant::HybridMatrix`]) that are rounded stochastically:
//! see `docs/ALGORITHM.md`. Rules, codes of moments and formats of weights are independent of each other, and one operation
//! serves all of them: [`MatrixUpdate`]. The same rules on float parameters ([`FloatUpdate`]) serve norm gains and the reference
//! mode.

pub mod adamw;
pub mod error;
pub mod float;
pub mod lion;
pub mod moment;
pub mod ops;
pub mod rule;
pub mod schedule;
pub mod state;
pub mod stats;
pub mod weight;

mod cpu;
mod planner;

pub use adamw::{AdamWConfig, AdamWStep};
pub use error::Error;
pub use float::FloatState;
pub use lion::LionConfig;
pub use moment::{Moment, MomentCode};
pub use ops::{FloatUpdate, MatrixUpdate, OptimOps, SquareSum};
pub use rule::Rule;
pub use schedule::{Schedule, ScheduleKind};
pub use state::{MatrixState, StatePart};
pub use stats::{RowSquares, UpdateStats};
pub use weight::WeightRounding;
