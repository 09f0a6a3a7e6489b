//! INT8 tensor primitives: what everything else in `qft` is built on.
//!
//! * [`Buffer`]: typed, device-opaque memory; every one is registered in a [`Ledger`] with its owner.
//! * [`Rounding`]: nearest or stochastic, always explicit; stochastic bits come from [`Philox`].
//! * [`QuantizeOps`]: quantize and dequantize with one scale per row or column.
//! * [`GemmOps`]: INT8 x INT8 -> INT32 products in three orientations, scaled into `f32`; and `f32` products.
//! * [`Communicator`]: what processes exchange that work on one model together; [`Collectives`]: the same between devices.
//! * [`Cpu`]: the executable specification of every operation; [`Planner`]: a device that only counts bytes.

// Tests inside the crate share code with those outside, which call it by its name.
#[cfg(test)]
extern crate self as qft_tensor;

pub mod arena;
pub mod background;
pub mod buffer;
pub mod collectives;
pub mod communicator;
pub mod cpu;
pub mod device;
pub mod dtype;
pub mod error;
pub mod gemm;
pub mod host;
pub mod ledger;
pub mod numeric;
pub mod pieces;
pub mod planner;
pub mod pool;
pub mod purpose;
pub mod quantize;
pub mod rng;
pub mod rotation;
pub mod rounding;
pub mod row_shard;
pub mod simd;
pub mod traffic;
pub mod transfer;

pub use background::{Background, Started};
pub use buffer::{Buffer, Mat, MatMut, Span};
pub use collectives::Collectives;
pub use communicator::{Alone, Communicator};
pub use cpu::Cpu;
pub use device::{Device, DeviceKind};
pub use dtype::{DType, Element};
pub use error::Error;
pub use gemm::{GemmF32, GemmI8, GemmOps, GemmOut, MAX_K, Orientation};
pub use host::{CpuConfig, Host};
pub use ledger::{Ledger, LiveBuffer, MemoryReport, Owner};
pub use pieces::Pieces;
pub use planner::Planner;
pub use purpose::{MAX_MICRO_BATCHES, Purpose};
pub use quantize::{Dequantize, QMatrix, QuantizeCols, QuantizeOps, QuantizeRows, ScaleAxis};
pub use rng::{Philox, RngKey};
pub use rotation::RotateRows;
pub use rounding::Rounding;
pub use row_shard::RowShard;
pub use simd::{Isa, Kernel};
pub use traffic::{Traffic, TrafficCounter};
pub use transfer::Transfer;
