//! The trainer.
pub mod backend;
pub mod checkpoint;
pub mod optimizer;
pub mod plan;
pub mod trainer;

pub use backend::TrainOps;
