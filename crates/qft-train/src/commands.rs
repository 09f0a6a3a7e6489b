//! The commands of `qft`.

pub mod eval;
pub mod finetune;
pub mod generate;
pub mod plan;
