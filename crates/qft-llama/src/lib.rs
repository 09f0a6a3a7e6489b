//! LLaMA models with INT8 training states.

pub mod batch;

pub use batch::{Batch, IGNORE};
