//! Safetensors files: a strict reader, a streaming writer, and the index of a model in several files.
//!
//! A file is the length of its header (8 bytes), the header (JSON: type, shape and place of each tensor), and the
//! data. Files are read at explicit positions, never mapped into memory: a file that shrinks while it is read
//! gives an error and not a signal, and none of its pages count in the memory that a planner promises.

mod header;
mod index;
mod reader;
mod writer;

pub use ::safetensors::Dtype;
pub use header::StoredTensor;
pub use index::read_index;
pub use reader::{Advice, TensorFile};
pub use writer::{TensorInfo, TensorWriter};

/// The length of the header, before it.
const PREFIX_BYTES: u64 = 8;

/// The format's own limit of a header; no index is larger either.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The most dimensions of a tensor that are believed.
const MAX_DIMENSIONS: usize = 8;

/// Bytes of a tensor; `None` if they are more than 64 bits count, or end within a byte.
fn tensor_bytes(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let elements =
        shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64))?;
    let bits = elements.checked_mul(dtype.bitsize() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}
