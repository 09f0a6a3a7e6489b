//! Quantized Lion.
//!
//! Lion (Chen et al., arXiv 2302.06675) moves every weight by the learning rate in the direction of a sign. Here
//! its momentum is INT8 ([`Momentum`]) and the weights are fixed-point numbers ([`qft_quant::HybridMatrix`]) that
//! are rounded stochastically: see `docs/ALGORITHM.md`. Float Lion and AdamW ([`FloatUpdate`]) serve norm gains
//! and the reference mode.

pub mod error;
pub mod float;
pub mod lion;
pub mod momentum;
pub mod ops;
pub mod schedule;

mod cpu;
mod planner;

pub use error::Error;
pub use float::{FloatRule, FloatState};
pub use lion::{LionConfig, WeightRounding};
pub use momentum::{Momentum, MomentumCode};
pub use ops::{FloatUpdate, LionUpdate, OptimOps, RowSquares, SquareSum, UpdateStats};
pub use schedule::{Schedule, ScheduleKind};
