//! Sums of whole numbers of a unit on the CPU.

use crate::Error;
use crate::ops::{AddUnits, FromUnits, RaiseBound};
use qft_tensor::numeric::sum_unit;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Adds a row, or sets it.
struct Add<'a> {
    values: &'a [f32],
    inverse: f32,
    sum: &'a mut [i32],
    accumulate: bool,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { values, inverse, sum, accumulate } = self;
        let units = |value: f32| (value * inverse).round_ties_even() as i32;
        if accumulate {
            for (sum, &value) in sum.iter_mut().zip(values) {
                *sum = sum.wrapping_add(units(value));
            }
        } else {
            for (sum, &value) in sum.iter_mut().zip(values) {
                *sum = units(value);
            }
        }
    }
}

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

pub(super) fn add(cpu: &Cpu, op: AddUnits<'_>) -> Result<(), Error> {
    let (elements, isa) = (op.check()?, cpu.isa());
    let AddUnits { values, bound, count, cols, sum, accumulate } = op;
    if elements == 0 {
        return Ok(());
    }
    let values = values.host()?[..elements].par_chunks(cols);
    let rows = sum.host_mut()?[..elements].par_chunks_mut(cols).zip(values);
    cpu.for_each(rows.zip(bound.host()?), |((sum, values), &bound)| {
        let inverse = 1.0 / sum_unit(bound, count);
        isa.run(Add { values, inverse, sum, accumulate });
    });
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
