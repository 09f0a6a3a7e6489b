//! Sums of whole numbers of a unit on the CPU.

use crate::Error;
use crate::ops::{FromUnits, RaiseBound};
use qft_tensor::numeric::sum_unit;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Makes floats of a row.
struct Scale<'a> {
    sum: &'a [i32],
    unit: f32,
    values: &'a mut [f32],
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (value, &sum) in self.values.iter_mut().zip(self.sum) {
            *value = sum as f32 * self.unit;
        }
    }
}

pub(super) fn raise_bound(op: RaiseBound<'_>) -> Result<(), Error> {
    op.check()?;
    for (bound, &scale) in op.bound.host_mut()?.iter_mut().zip(op.scale.host()?) {
        let new = scale * op.factor;
        *bound = if new > *bound || new.is_nan() { new } else { *bound };
    }
    Ok(())
}

pub(super) fn from(cpu: &Cpu, op: FromUnits<'_>) -> Result<(), Error> {
    let (elements, isa) = (op.check()?, cpu.isa());
    let FromUnits { sum, bound, count, cols, values } = op;
    if elements == 0 {
        return Ok(());
    }
    let sum = sum.host()?[..elements].par_chunks(cols);
    let rows = values.host_mut()?[..elements].par_chunks_mut(cols).zip(sum);
    cpu.for_each(rows.zip(bound.host()?), |((values, sum), &bound)| {
        isa.run(Scale { sum, unit: sum_unit(bound, count), values });
    });
    Ok(())
}
