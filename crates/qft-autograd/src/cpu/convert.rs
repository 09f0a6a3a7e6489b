//! bf16 on the CPU.

use crate::Error;
use crate::ops::{FromBf16, ToBf16};
use half::bf16;
use qft_tensor::numeric::{nearest_bf16, widen_bf16};
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Elements per task.
const CHUNK: usize = 16 << 10;

struct Round<'a>(&'a [f32], &'a mut [bf16]);

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (dst, &src) in self.1.iter_mut().zip(self.0) {
            *dst = nearest_bf16(src);
        }
    }
}

struct Widen<'a>(&'a [bf16], &'a mut [f32]);

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (dst, &src) in self.1.iter_mut().zip(self.0) {
            *dst = widen_bf16(src);
        }
    }
}

pub(super) fn to_bf16(cpu: &Cpu, op: ToBf16<'_>) -> Result<(), Error> {
    op.check()?;
    let (isa, src, dst) = (cpu.isa(), op.src.host()?, op.dst.host_mut()?);
    cpu.for_each(dst.par_chunks_mut(CHUNK).zip(src.par_chunks(CHUNK)), |(dst, src)| {
        isa.run(Round(src, dst));
    });
    Ok(())
}

pub(super) fn from_bf16(cpu: &Cpu, op: FromBf16<'_>) -> Result<(), Error> {
    op.check()?;
    let (isa, src, dst) = (cpu.isa(), op.src.host()?, op.dst.host_mut()?);
    cpu.for_each(dst.par_chunks_mut(CHUNK).zip(src.par_chunks(CHUNK)), |(dst, src)| {
        isa.run(Widen(src, dst));
    });
    Ok(())
}
