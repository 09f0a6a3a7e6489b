//! Layers: forward and backward side by side.

pub mod bias;
pub mod embedding;
pub mod linear;
pub mod loss_head;
pub mod pending;
pub mod processes;
pub mod rmsnorm;
pub mod scale;
mod share_sum;
