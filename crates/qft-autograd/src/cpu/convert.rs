//! bf16 on the CPU.

use crate::Error;
use crate::ops::{FromBf16, ToBf16};
use half::bf16;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Elements per task.
const CHUNK: usize = 16 << 10;

/// Rounds to nearest, ties to even; NaN stays a quiet NaN.
#[inline(always)]
fn round(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    bf16::from_bits(if x.is_nan() { (bits >> 16 | 0x40) as u16 } else { rounded as u16 })
}

struct Round<'a>(&'a [f32], &'a mut [bf16]);

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (dst, &src) in self.1.iter_mut().zip(self.0) {
            *dst = round(src);
        }
    }
}

struct Widen<'a>(&'a [bf16], &'a mut [f32]);

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (dst, &src) in self.1.iter_mut().zip(self.0) {
            *dst = f32::from_bits(u32::from(src.to_bits()) << 16);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_half_does() {
        for bits in (0..=u32::MAX).step_by(997).chain([0x7F80_0000, 0xFF80_0000, 0x7F80_0001]) {
            let x = f32::from_bits(bits);
            assert_eq!(round(x).to_bits(), bf16::from_f32(x).to_bits(), "{bits:#x}");
        }
    }
}
