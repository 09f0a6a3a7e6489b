//! The trainer: options, plan, data, optimizer step, checkpoints, and the commands of `qft`.

pub mod args;
pub mod backend;
pub mod chat;
pub mod checkpoint;
pub mod commands;
pub mod data;
pub mod fit;
pub mod flip_rate;
pub mod machine;
pub mod metrics;
pub mod open;
pub mod optimizer;
pub mod options;
pub mod plan;
pub mod products;
pub mod profile;
pub mod progress;
pub mod rss;
pub mod states;
pub mod trainer;

pub use backend::TrainOps;
