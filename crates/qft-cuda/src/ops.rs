//! The operations: each checks its operands as its CPU twin does, then launches.

mod attention;
mod bias;
mod columns;
mod convert;
mod dims;
mod embedding;
pub(crate) mod gemm;
mod hybrid;
mod layers;
mod loss;
mod optim;
mod quantize;
mod rmsnorm;
mod rope;
mod scaled_add;
mod shares;
mod staging;
mod swiglu;
mod unit_sum;
