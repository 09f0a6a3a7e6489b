//! Biases on the CPU.

use crate::Error;
use crate::ops::{AddBias, BiasGradient};
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Tokens of a share of the gradient.
const BLOCK: usize = 64;

/// Adds `row` to each row.
struct AddRow<'a> {
    rows: &'a mut [f32],
    row: &'a [f32],
}

impl Kernel for AddRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for y in self.rows.chunks_exact_mut(self.row.len()) {
            for (y, bias) in y.iter_mut().zip(self.row) {
                *y += bias;
            }
        }
    }
}

/// Sums rows, one after the other.
struct SumRows<'a> {
    rows: &'a [f32],
    sum: &'a mut [f32],
}

impl Kernel for SumRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.rows.chunks_exact(self.sum.len()) {
            for (sum, x) in self.sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

pub(super) fn add(cpu: &Cpu, op: AddBias<'_>) -> Result<(), Error> {
    op.check()?;
    let (isa, y, row) = (cpu.isa(), op.y.host_mut()?, op.bias.host()?);
    if y.is_empty() {
        return Ok(());
    }
    cpu.for_each(y.par_chunks_mut(BLOCK * row.len()), |rows| isa.run(AddRow { rows, row }));
    Ok(())
}

pub(super) fn gradient(cpu: &Cpu, op: BiasGradient<'_>) -> Result<(), Error> {
    let tokens = op.check()?;
    let (isa, dy, dbias) = (cpu.isa(), op.dy.host()?, op.dbias.host_mut()?);
    let width = dbias.len();
    if dy.is_empty() {
        return Ok(());
    }
    let mut shares = vec![0.0; tokens.div_ceil(BLOCK) * width];
    let tasks = dy.par_chunks(BLOCK * width).zip(shares.par_chunks_mut(width));
    cpu.for_each(tasks, |(rows, sum)| isa.run(SumRows { rows, sum }));
    isa.run(SumRows { rows: &shares, sum: dbias });
    Ok(())
}
