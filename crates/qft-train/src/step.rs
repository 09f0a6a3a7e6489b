//! One optimizer step: the trainer, the optimizer and the sinks that gradients go through, and checkpoints.

pub mod answers;
pub mod checkpoint;
pub mod diagnostics;
pub mod evaluations;
pub mod flip_rate;
pub mod groups;
pub mod guard;
pub mod ops;
pub mod optimizer;
pub mod rows;
pub mod setup;
pub mod sinks;
pub mod snapshot;
pub mod trainer;

pub use ops::TrainOps;
pub use setup::Setup;
pub use trainer::{GradientMode, Trainer};
