//! The operations: each checks its operands as its CPU twin does, then launches.

mod convert;
mod dims;
mod gemm;
mod hybrid;
mod optim;
mod quantize;
