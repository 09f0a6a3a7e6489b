//! The operations: each checks its operands as its CPU twin does, then launches.

mod convert;
mod gemm;
