//! GGUF files, as llama.cpp and programs on top of it read them: metadata, then tensors, in one file.
//!
//! A file is a magic number and the version, the numbers of tensors and of metadata entries, the entries, name, shape, type and
//! place of each tensor, and the data, each tensor at a multiple of [`ALIGNMENT`]. All numbers are little-endian.
//! Source: `docs/gguf.md` of ggml.

mod value;
mod writer;

pub use value::GgufValue;
pub use writer::{GgufTensor, GgufWriter};

/// Elements that share a scale in [`GgufType::Q8_0`].
pub const Q8_0_BLOCK: usize = 32;

/// Bytes that the data of each tensor is a multiple of apart from the first.
pub const ALIGNMENT: u64 = 32;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of [`Q8_0_BLOCK`] elements of a row: a scale in float16, then an i8 for each element.
    Q8_0,
}

impl GgufType {
    /// The number in a file.
    pub const fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// Elements of a block, and its bytes.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (Q8_0_BLOCK, 2 + Q8_0_BLOCK),
        }
    }

    /// Bytes of a row of `cols` elements; `None` if it ends within a block.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        let (elements, bytes) = self.block();
        if cols.is_multiple_of(elements) { Some(cols / elements * bytes) } else { None }
    }
}
