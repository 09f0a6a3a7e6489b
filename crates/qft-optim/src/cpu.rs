//! Updates on the CPU.

mod float;
mod moments;
mod protected;
mod update;
mod weights;

use crate::{Error, FloatUpdate, MatrixUpdate, OptimOps, SquareSum};
use qft_tensor::numeric::LANES;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

impl OptimOps for Cpu {
    fn matrix_update(&self, op: MatrixUpdate<'_>) -> Result<(), Error> {
        update::matrix_update(self, op)
    }

    fn float_update(&self, op: FloatUpdate<'_>) -> Result<(), Error> {
        float::float_update(self, op)
    }

    fn square_sum(&self, op: SquareSum<'_>) -> Result<(), Error> {
        op.check()?;
        let SquareSum { grad, first_row, tensor, stats } = op;
        let (cols, stride, isa) = (grad.cols(), grad.stride(), self.isa());
        if grad.rows() == 0 || cols == 0 {
            return Ok(());
        }
        let mut squares = vec![0.0; grad.rows()];
        let tasks = squares.par_iter_mut().zip(grad.host()?.par_chunks(stride));
        self.for_each(tasks.with_min_len(TASK / cols), |(square, row)| {
            *square = isa.run(RowSquares(&row[..cols]));
        });
        let rows = first_row..first_row + squares.len();
        if let Some((to, places)) = stats.squares_of(tensor, &rows) {
            for (to, square) in to.host_mut()?[places].iter_mut().zip(squares) {
                *to = square as f32;
            }
            return Ok(());
        }
        stats.sums.host_mut()?[2 * tensor as usize] += squares.iter().sum::<f64>() as f32;
        Ok(())
    }
}

/// Elements per task: enough work to outweigh handing it over.
const TASK: usize = 1 << 15;

/// The sum of squares of a row: lanes in f32, then the lanes in f64.
struct RowSquares<'a>(&'a [f32]);

impl Kernel for RowSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut lanes = [0.0; LANES];
        add_squares(self.0, 1.0, &mut lanes);
        lanes.iter().copied().map(f64::from).sum()
    }
}

/// Adds the squares of `x * factor` lane by lane.
#[inline(always)]
fn add_squares(x: &[f32], factor: f32, lanes: &mut [f32; LANES]) {
    let (head, tail) = x.as_chunks::<LANES>();
    for chunk in head {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            let x = x * factor;
            *lane += x * x;
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        let x = x * factor;
        *lane += x * x;
    }
}

/// Splits off the first `count` elements.
fn take<'a, T>(slice: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let (here, behind) = std::mem::take(slice).split_at_mut(count);
    *slice = behind;
    here
}
