//! The error type of this crate.

use crate::{DType, DeviceKind};

/// What can go wrong in a tensor operation. Every variant carries its operands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two operands disagree about a dimension.
    #[error("{op}: shape mismatch, expected {expected}, got {got}")]
    ShapeMismatch {
        /// The operation that checked.
        op: &'static str,
        /// What the operation needs, in words or as a shape.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// The contraction is too long for an exact `i32` sum.
    #[error("{op}: contraction of {k} terms can overflow an i32 sum, at most {max} are allowed; split it", max = crate::MAX_K)]
    AccumulatorRange {
        /// The operation that checked.
        op: &'static str,
        /// The contraction length that was asked for.
        k: usize,
    },
    /// A buffer lives on another device than the operation runs on.
    #[error("{op}: buffer `{name}` lives on {got}, but the operation runs on {expected}")]
    WrongDevice {
        /// The operation or accessor.
        op: &'static str,
        /// The name of the buffer.
        name: &'static str,
        /// Where the operation runs.
        expected: DeviceKind,
        /// Where the buffer lives.
        got: DeviceKind,
    },
    /// A view reaches past the end of its buffer.
    #[error("{op}: elements {start}..{end} of a buffer of {len}")]
    OutOfBounds {
        /// The operation or accessor.
        op: &'static str,
        /// First element.
        start: usize,
        /// One past the last element.
        end: usize,
        /// Elements in the buffer.
        len: usize,
    },
    /// A size does not fit the address space.
    #[error("{op}: {rows} x {cols} elements of {dtype} do not fit the address space")]
    TooLarge {
        /// The operation that computed the size.
        op: &'static str,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// Element type.
        dtype: DType,
    },
    /// The device has no memory left.
    #[error("out of memory: `{name}` needs {bytes} bytes")]
    OutOfMemory {
        /// The buffer that was asked for.
        name: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// What was reserved cannot be given back.
    #[error("reserve: buffers are still in the memory that was reserved before")]
    ArenaInUse,
    /// No stream of random numbers is set apart for a micro-batch or a part of a tensor.
    #[error(
        "random numbers for {purpose:?}: {what} {got} would repeat those of another; only {limit} have numbers of their own"
    )]
    StreamRange {
        /// What the numbers are for.
        purpose: crate::Purpose,
        /// Which place of the key.
        what: &'static str,
        /// The place, counted from 0.
        got: usize,
        /// How many there are.
        limit: usize,
    },
    /// A value that must be finite is not.
    #[error("{op}: element {index} is {value}, expected a finite number")]
    NotFinite {
        /// The operation that checked.
        op: &'static str,
        /// Index of the first such element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A device that only counts was given something to compute.
    #[error("{device}: only counts memory, and cannot compute")]
    NoHost {
        /// The device.
        device: DeviceKind,
    },
    /// Another process of the job is gone or does not answer.
    #[error("process {rank} of {size}: {message}")]
    Communication {
        /// The number of this process.
        rank: usize,
        /// How many there are.
        size: usize,
        /// What was tried, what happened, and what to do.
        message: String,
    },
    /// The device itself failed; the text is the driver's.
    #[error("{op}: device failure: {message}")]
    DeviceFailure {
        /// The operation that failed.
        op: &'static str,
        /// What the driver says.
        message: String,
    },
    /// The environment asks for an instruction set that this processor lacks, or an unknown one.
    #[error("QFT_ISA={requested}: {reason}; available here: {available}")]
    UnsupportedIsa {
        /// The requested name.
        requested: String,
        /// Why it can't be used.
        reason: &'static str,
        /// Comma-separated names that would work.
        available: String,
    },
    /// The thread pool could not be made.
    #[error("cannot start {threads} worker threads: {message}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The reason.
        message: String,
    },
}

impl Error {
    /// A [`Error::ShapeMismatch`] from anything printable.
    pub fn shape(
        op: &'static str,
        expected: impl std::fmt::Display,
        got: impl std::fmt::Display,
    ) -> Self {
        Self::ShapeMismatch { op, expected: expected.to_string(), got: got.to_string() }
    }
}
