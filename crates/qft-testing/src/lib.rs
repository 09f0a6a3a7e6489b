//! What the tests of the workspace share. Depends on no other crate of the workspace, so every crate can use it.

pub mod finite_diff;
pub mod gguf;
pub mod hub_server;
pub mod material;
pub mod reference;
pub mod rng;
pub mod tolerance;
