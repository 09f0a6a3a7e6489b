//! What updates add up: sums of squares of gradients, and rows that outgrew their scale.

use crate::Error;
use qft_tensor::{Buffer, Device, Owner};
use std::ops::Range;

/// What the updates of one step add up, kept on the device: `[tensors, 2]`.
///
/// Per tensor: the sum of squares of its gradient (after `grad_scale`), and the number of rows whose scale grew
/// because a weight left its range. Where rows are asked for, also the sum of squares of each row's gradient: by these, a
/// norm depends neither on how rows are cut into calls, nor on which process has which.
#[derive(Debug)]
pub struct UpdateStats {
    /// f32 `[tensors, 2]`.
    pub sums: Buffer<f32>,
    /// Of the rows, if they were asked for.
    pub rows: Option<RowSquares>,
}

/// Sums of squares by row, of some tensors.
#[derive(Debug)]
pub struct RowSquares {
    /// f32, the rows of all tensors that have any.
    pub squares: Buffer<f32>,
    /// Where those of each tensor begin, and the last ends.
    starts: Vec<usize>,
}

impl RowSquares {
    /// The rows of a tensor, if it has any.
    pub fn of(&self, tensor: usize) -> Option<Range<usize>> {
        let places = *self.starts.get(tensor)?..*self.starts.get(tensor + 1)?;
        Some(places).filter(|places| !places.is_empty())
    }
}

impl UpdateStats {
    /// All zero.
    pub fn zeros(device: &dyn Device, tensors: usize) -> Result<Self, Error> {
        let sums = Buffer::zeros(device, Owner::Workspace, "update stats", tensors * 2)?;
        Ok(Self { sums, rows: None })
    }

    /// The same, with sums by row: `rows` has their number in each tensor, 0 for one that has none.
    pub fn with_rows(device: &dyn Device, rows: &[usize]) -> Result<Self, Error> {
        let starts: Vec<usize> = std::iter::once(0)
            .chain(rows.iter().scan(0, |end, rows| {
                *end += rows;
                Some(*end)
            }))
            .collect();
        let all = starts[rows.len()];
        let squares = Buffer::zeros(device, Owner::Workspace, "squares of rows", all)?;
        let zeros = Self::zeros(device, rows.len())?;
        Ok(Self { rows: Some(RowSquares { squares, starts }), ..zeros })
    }

    /// All zero again.
    ///
    /// Errors: those of the device.
    pub fn clear(&mut self, device: &dyn Device) -> Result<(), Error> {
        self.sums.fill_zero(device)?;
        if let Some(rows) = &mut self.rows {
            rows.squares.fill_zero(device)?;
        }
        Ok(())
    }

    /// Where the sums of these rows of a tensor are kept, if they are.
    pub fn squares_of(
        &mut self,
        tensor: u32,
        rows: &Range<usize>,
    ) -> Option<(&mut Buffer<f32>, Range<usize>)> {
        let all = self.rows.as_mut()?;
        let first = all.of(tensor as usize)?.start;
        Some((&mut all.squares, first + rows.start..first + rows.end))
    }
}
