//! LLaMA models with INT8 training states.

pub mod batch;
pub mod block;
pub mod config;
pub mod error;
pub mod export;
pub mod generate;
mod geometry;
pub mod model;
pub mod params;
pub mod pass;
pub mod sampling;
pub mod source;
pub mod stream;
pub mod tokenizer;
mod tokens;

pub use batch::{Batch, IGNORE};
pub use config::{
    AttentionBias, Family, LayerKind, LayerRope, LlamaConfig, Multipliers, NormPlacement, PRESETS,
    QkNorm, Rope, RopeScaling, TensorKind, TensorSpec,
};
pub use error::Error;
pub use export::{
    DEFAULT_SHARD_BYTES, FillRows, FolderExport, GgufExport, export_folder, export_folder_on,
    export_gguf,
};
pub use sampling::TokenSampler;
pub use source::{Synthetic, WeightSource, Weights, WithOutliers};
pub use tokenizer::{TextStream, Tokenizer};
