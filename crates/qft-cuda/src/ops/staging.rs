//! Rows that wait in shared memory for their scale.

use crate::Cuda;

/// Shared memory that kernels have beside the row, rounded up.
const OTHER_SHARED: u32 = 1 << 10;

/// Bytes of a row of `cols` floats in shared memory; absent if it does not fit there.
pub(super) fn row_bytes(cuda: &Cuda, cols: usize) -> Option<u32> {
    let room = cuda.driver().properties().max_shared_bytes;
    let bytes = u32::try_from(cols * size_of::<f32>()).ok()?;
    (bytes <= room.saturating_sub(OTHER_SHARED)).then_some(bytes)
}
