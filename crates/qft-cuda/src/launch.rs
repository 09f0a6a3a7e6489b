//! What a kernel is started with.

use std::fmt;

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A device address; 0 for an absent optional.
    Ptr(u64),
    /// A 64-bit integer.
    U64(u64),
    /// A 32-bit integer.
    U32(u32),
    /// A signed 32-bit integer.
    I32(i32),
    /// A float.
    F32(f32),
}

impl Arg {
    /// The null pointer, for an absent optional.
    pub const NULL: Self = Self::Ptr(0);

    /// A 64-bit integer from a size.
    pub const fn size(value: usize) -> Self {
        Self::U64(value as u64)
    }

    /// The parameter that this argument fits.
    pub const fn parameter(self) -> Parameter {
        match self {
            Self::Ptr(_) | Self::U64(_) => Parameter::B64,
            Self::U32(_) | Self::I32(_) => Parameter::B32,
            Self::F32(_) => Parameter::F32,
        }
    }

    /// The value as the kernel reads it, in the first bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        let word = |bytes: [u8; 4]| {
            let mut out = [0; 8];
            out[..4].copy_from_slice(&bytes);
            out
        };
        match self {
            Self::Ptr(value) | Self::U64(value) => value.to_ne_bytes(),
            Self::U32(value) => word(value.to_ne_bytes()),
            Self::I32(value) => word(value.to_ne_bytes()),
            Self::F32(value) => word(value.to_ne_bytes()),
        }
    }
}

/// One parameter of a kernel, as far as PTX tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// A pointer or a 64-bit integer.
    B64,
    /// A 32-bit integer.
    B32,
    /// A float.
    F32,
}

/// What a kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Its parameters in order.
    pub parameters: Vec<Parameter>,
    /// The most threads that a block may have: its launch bounds.
    pub max_threads: u32,
    /// Shared memory that a block has besides what its launch asks for.
    pub static_shared_bytes: u32,
}

/// Grid and block of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Launch {
    /// `blocks` one-dimensional blocks of `threads`.
    pub const fn blocks(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], shared_bytes: 0 }
    }

    /// One-dimensional blocks of `threads` so that `per_block` items of `count` fall to each, but no more than
    /// `most` blocks: the kernel goes on by grid strides.
    pub fn strided(count: usize, per_block: usize, threads: u32, most: u32) -> Self {
        let blocks = count.div_ceil(per_block).min(most as usize) as u32;
        Self::blocks(blocks, threads)
    }

    /// The same with dynamic shared memory.
    pub const fn with_shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    /// Threads of a block.
    pub fn threads(&self) -> u64 {
        self.block.iter().map(|&n| u64::from(n)).product()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0) || self.block.contains(&0)
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "grid {:?}, block {:?}, {} shared bytes",
            self.grid, self.block, self.shared_bytes
        )
    }
}
