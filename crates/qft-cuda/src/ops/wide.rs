//! Wide channels on the GPU: `kernels/wide.cu` chooses them, the operation that knows the rows quantizes them.

use super::dims;
use crate::scratch::ScratchUse;
use crate::{Arg, Cuda, Launch};
use qft_tensor::wide::Wide;
use qft_tensor::{Device, Error, QMatrix};

/// Threads of the block that chooses, as in the kernel.
const SELECT_THREADS: u32 = 1024;

/// The maxima of the columns of a result with places for wide channels, in scratch.
pub(super) struct Maxima<'a> {
    scratch: ScratchUse<'a>,
}

impl<'a> Maxima<'a> {
    /// Zeros for the columns of `out`; none if it has no places for wide channels.
    pub(super) fn new(
        cuda: &'a Cuda,
        op: &'static str,
        out: &QMatrix,
    ) -> Result<Option<Self>, Error> {
        if out.wide.is_none() {
            return Ok(None);
        }
        let bytes = out.cols() * size_of::<u32>();
        let scratch = cuda.scratch(op, bytes)?;
        if let Arg::Ptr(address) = scratch.at(0)
            && bytes > 0
        {
            cuda.driver().zero(address, bytes).map_err(|error| error.during(op))?;
        }
        Ok(Some(Self { scratch }))
    }

    /// For the kernel that raises them.
    pub(super) fn arg(maxima: Option<&Self>) -> Arg {
        maxima.map_or(Arg::NULL, |maxima| maxima.scratch.at(0))
    }

    /// Chooses the wide channels: the channels and second digits of `wide` for the kernel that quantizes again.
    pub(super) fn select(
        &self,
        cuda: &Cuda,
        op: &'static str,
        wide: &mut Wide,
        cols: usize,
    ) -> Result<(Arg, Arg), Error> {
        let channels = cuda.write(op, &mut wide.channels)?;
        let args = [self.scratch.at(0), channels, Arg::U32(dims::index(op, cols)?)];
        cuda.launch(op, "wide_select_u32", Launch::blocks(1, SELECT_THREADS), &args)?;
        Ok((channels, cuda.write(op, &mut wide.high)?))
    }
}

/// Leaves all places for wide channels of an empty matrix unused.
pub(super) fn none(cuda: &Cuda, op: &'static str, out: &mut QMatrix) -> Result<(), Error> {
    let Some(wide) = &mut out.wide else { return Ok(()) };
    let device: &dyn Device = cuda;
    wide.high.fill_zero(device)?;
    let args = [Arg::NULL, cuda.write(op, &mut wide.channels)?, Arg::U32(0)];
    cuda.launch(op, "wide_select_u32", Launch::blocks(1, SELECT_THREADS), &args)
}
