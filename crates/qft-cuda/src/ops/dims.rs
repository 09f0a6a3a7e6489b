//! Sizes as kernels take them.

use qft_tensor::Error;

/// A size as a 32-bit integer.
///
/// Errors: [`Error::ShapeMismatch`] if it does not fit.
pub(crate) fn index(op: &'static str, size: usize) -> Result<u32, Error> {
    u32::try_from(size)
        .map_err(|_| Error::shape(op, format_args!("a size of at most {}", u32::MAX), size))
}
