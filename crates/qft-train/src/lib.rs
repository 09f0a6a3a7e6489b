//! The trainer.

pub mod args;
pub mod backend;
pub mod chat;
pub mod checkpoint;
pub mod data;
pub mod metrics;
pub mod optimizer;
pub mod options;
pub mod plan;
pub mod progress;
pub mod rss;
pub mod states;
pub mod trainer;

pub use backend::TrainOps;
