//! Hybrid feature quantizer: a dense INT8 plane, an optional residual plane, and protected
//! weights: a sparse set that is kept in 16-bit float.
//!
//! A weight is `w = s * (q + r / F)` with one scale `s` per row, the INT8 high plane `q`, and a residual `r` of
//! 8 (`F = 256`), 4 (`F = 16`) or no bits (`F = 1`). Forward and backward products read `q` alone; updates go to
//! the whole fixed-point number. The largest magnitudes of a matrix may be kept as bf16 instead, at fixed
//! positions where `q = r = 0`.

pub mod encode;
pub mod error;
pub mod fixed_point;
pub mod hybrid;
pub mod ops;
pub mod protected;

mod cpu;
mod planner;

pub use encode::{EncodeReport, ReadRows};
pub use error::Error;
pub use hybrid::{HybridFormat, HybridMatrix, Kept, Residual};
pub use ops::{DecodeRows, HybridOps, Precision, SparseBackward, SparseForward};
pub use protected::{ProtectedRow, ProtectedView, ProtectedWeights};
