//! Sums of buffers on the CPU.

use crate::Error;
use crate::ops::ScaledAdd;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Elements per task.
const CHUNK: usize = 16 << 10;

struct Add<'a> {
    src: &'a [f32],
    scale: f32,
    dst: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (dst, &src) in self.dst.iter_mut().zip(self.src) {
            *dst = src.mul_add(self.scale, *dst);
        }
    }
}

pub(super) fn scaled_add(cpu: &Cpu, op: ScaledAdd<'_>) -> Result<(), Error> {
    op.check()?;
    let ScaledAdd { src, scale, dst } = op;
    let (isa, src, dst) = (cpu.isa(), src.host()?, dst.host_mut()?);
    cpu.for_each(dst.par_chunks_mut(CHUNK).zip(src.par_chunks(CHUNK)), |(dst, src)| {
        isa.run(Add { src, scale, dst });
    });
    Ok(())
}
