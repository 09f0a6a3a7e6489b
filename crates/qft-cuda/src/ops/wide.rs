//! Wide channels on the GPU: `kernels/wide.cu`. The operations that quantize get their digits from `quantize_wide.cuh`.

use super::columns::by_columns;
use super::dims::index;
use crate::{Arg, Cuda, Launch};
use qft_tensor::{Error, QMatrix, RaiseMaxima, SelectWide};

/// Threads of the block that chooses, as in the kernel.
const SELECT_THREADS: u32 = 1024;

/// The channels of a result and where its second digits go; null for one without places.
pub(super) fn places(cuda: &Cuda, op: &'static str, out: &mut QMatrix) -> Result<[Arg; 2], Error> {
    match &mut out.wide {
        Some(wide) => Ok([cuda.read(op, &wide.channels)?, cuda.write(op, &mut wide.high)?]),
        None => Ok([Arg::NULL; 2]),
    }
}

pub(super) fn raise_maxima(cuda: &Cuda, op: RaiseMaxima<'_>) -> Result<(), Error> {
    const OP: &str = "raise_maxima";
    op.check()?;
    let RaiseMaxima { x, maxima } = op;
    let (rows, cols) = (index(OP, x.rows())?, index(OP, x.cols())?);
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let (channels, high) = match &x.wide {
        Some(wide) => (cuda.read(OP, &wide.channels)?, cuda.read(OP, &wide.high)?),
        None => (Arg::NULL, Arg::NULL),
    };
    let (launch, strip) = by_columns(OP, x.rows(), x.cols())?;
    let args = [
        cuda.read(OP, &x.q)?,
        cuda.read(OP, &x.scale)?,
        channels,
        high,
        cuda.write(OP, maxima)?,
        Arg::U32(rows),
        Arg::U32(cols),
        Arg::U32(index(OP, strip)?),
    ];
    cuda.launch(OP, "raise_maxima_i8_f32", launch, &args)
}

pub(super) fn select(cuda: &Cuda, op: SelectWide<'_>) -> Result<(), Error> {
    const OP: &str = "select_wide";
    op.check()?;
    let SelectWide { maxima, mut choice } = op;
    let cols = Arg::U32(index(OP, maxima.len())?);
    let args = [cuda.read(OP, maxima)?, cuda.write_mat(OP, &mut choice)?, cols];
    cuda.launch(OP, "wide_select_u32", Launch::blocks(1, SELECT_THREADS), &args)
}
