//! LLaMA models with INT8 training states.

pub mod batch;
pub mod block;
pub mod config;
pub mod error;
pub mod generate;
pub mod model;
pub mod pass;
pub mod source;
pub mod tokenizer;

pub use batch::{Batch, IGNORE};
pub use config::{LlamaConfig, PRESETS, Rope, RopeScaling, TensorKind, TensorSpec};
pub use error::Error;
pub use source::{Synthetic, WeightSource, Weights};
pub use tokenizer::{TextStream, Tokenizer};
