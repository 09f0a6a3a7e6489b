//! The trainer. [`run::finetune()`] is a fine-tune as a library call; the rest is what it is made of, from the commands of
//! `qft` down to one optimizer step.

pub mod chat;
pub mod commands;
pub mod data;
mod error;
pub mod machine;
pub mod memory;
pub mod options;
pub mod report;
pub mod run;
pub mod step;

pub use error::{Error, ErrorKind, Result};
pub use step::TrainOps;
