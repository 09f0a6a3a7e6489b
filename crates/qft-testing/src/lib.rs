//! What the tests of the workspace share. Depends on no other crate of the workspace, so every crate can use it.

pub mod material;
pub mod rng;
