//! Integer autograd for transformers.
//!
//! Layers are written by hand, forward and backward side by side ([`layers`]). What the backward pass needs
//! lies on an activation stack; each parameter's gradient is handed to a [`GradientSink`] by blocks of rows, so
//! a whole gradient need not exist. Operations run on any device that implements [`LayerOps`].

pub mod activations;
pub mod compute;
pub mod context;
pub mod error;
pub mod layers;
pub mod ops;
pub mod param;
pub mod sink;
pub mod stack;

mod cpu;
mod planner;

pub use activations::Activations;
pub use compute::{Compute, Products};
pub use context::{Context, TensorId};
pub use error::Error;
pub use ops::{ActivationsOut, Heads, LayerOps, Segments, TableRef};
pub use param::{InputFormat, Matrix, Vector, Weight};
pub use sink::{GradientSink, Outlet};
pub use stack::Stack;
