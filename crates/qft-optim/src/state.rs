//! The state of an optimizer for one matrix: the moments that its rule keeps, in the codes that were chosen.

use crate::{Error, Moment, MomentCode, Rule};
use qft_tensor::buffer::RawBuffer;
use qft_tensor::{Buffer, DType, Device, Element, RowShard};

/// The moments of a hybrid matrix.
#[derive(Debug)]
pub struct MatrixState {
    /// First moment; the momentum of Lion.
    pub first: Moment,
    /// Second moment; absent for Lion.
    pub second: Option<Moment>,
}

impl MatrixState {
    /// Moments of zero for `rule`, the first in `code` and the second in [`MomentCode::Quartic`].
    ///
    /// Errors: [`qft_tensor::Error::OutOfMemory`].
    pub fn zeros(
        device: &dyn Device,
        shape: (usize, usize),
        rule: Rule,
        code: MomentCode,
    ) -> Result<Self, Error> {
        let second = match rule.moments() {
            1 => None,
            _ => Some(Moment::zeros(device, shape, MomentCode::Quartic)?),
        };
        Ok(Self { first: Moment::zeros(device, shape, code)?, second })
    }

    /// Every buffer, with its name in checkpoints.
    pub fn parts_mut(&mut self) -> Vec<StatePart<'_>> {
        let Self { first, second } = self;
        let mut parts = Vec::from(first.parts_mut(["momentum", "momentum_scale"]));
        let names = ["second_moment", "second_moment_scale"];
        parts.extend(second.iter_mut().flat_map(|second| second.parts_mut(names)));
        parts
    }
}

/// One buffer of a state.
#[derive(Debug)]
pub struct StatePart<'a> {
    /// Its name in checkpoints, behind that of the parameter.
    pub name: &'static str,
    /// Type of its elements.
    pub dtype: DType,
    /// Their number.
    pub len: usize,
    /// The memory.
    pub raw: &'a mut RawBuffer,
    /// Where it has some rows of a matrix alone: which, and of how many.
    pub rows: Option<(RowShard, usize)>,
}

impl<'a> StatePart<'a> {
    pub(crate) fn of<T: Element>(
        name: &'static str,
        buffer: &'a mut Buffer<T>,
        rows: Option<(RowShard, usize)>,
    ) -> Self {
        Self { name, dtype: T::DTYPE, len: buffer.len(), raw: buffer.raw_mut(), rows }
    }
}
