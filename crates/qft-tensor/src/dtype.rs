//! Element types a buffer can hold.

use std::fmt;

/// The type of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Brain float, 16 bit.
    Bf16,
    /// IEEE single precision.
    F32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
        }
    }

    /// Whether the type is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Bf16 | Self::F32)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A plain type that a [`crate::Buffer`] can hold.
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync + fmt::Debug + 'static {
    /// The matching run-time tag.
    const DTYPE: DType;
}

macro_rules! element {
    ($($ty:ty => $tag:ident),*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: DType = DType::$tag;
        }
    )*};
}
element!(i8 => I8, u8 => U8, i32 => I32, u32 => U32, half::bf16 => Bf16, f32 => F32);
