//! Integer autograd for transformers.
//!
//! Layers are written by hand, forward and backward side by side ([`layers`]). What the backward pass needs
//! lies on an activation stack; each parameter's gradient is handed to a [`GradientSink`] by blocks of rows, so
//! a whole gradient need not exist. Operations run on any device that implements [`LayerOps`].

pub mod error;
pub mod ops;

mod cpu;
mod planner;

pub use error::Error;
pub use ops::{Heads, LayerOps, RowsOut, Segments, TableRef};
