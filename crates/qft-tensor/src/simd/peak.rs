//! The speed limit of a kernel: its multiply instruction on registers alone. For benchmarks.

use crate::Isa;
use crate::simd::Level;

/// Runs the integer multiply-add of `isa` on registers for `rounds` rounds; the operations it did, a multiply-add
/// counting as two. None on the scalar path, which has no such instruction.
pub fn int8_operations(isa: Isa, rounds: u32) -> Option<u64> {
    match isa.0 {
        Level::Scalar => None,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => {
            // SAFETY: `isa` includes these instructions.
            unsafe { x86::madd(rounds) }
            Some(u64::from(rounds) * 12 * 16 * 2)
        }
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => {
            // SAFETY: `isa` includes these instructions.
            unsafe { x86::dpbusd_256(rounds) }
            Some(u64::from(rounds) * 12 * 32 * 2)
        }
        #[cfg(target_arch = "x86_64")]
        Level::Vnni => {
            // SAFETY: `isa` includes these instructions.
            unsafe { x86::dpbusd(rounds) }
            Some(u64::from(rounds) * 24 * 64 * 2)
        }
        #[cfg(target_arch = "x86_64")]
        Level::Amx => {
            // SAFETY: `isa` includes these instructions, and the process may use tiles.
            unsafe { x86::tdpbssd(rounds) }
            Some(u64::from(rounds) * 4 * 16 * 16 * 64 * 2)
        }
        #[cfg(target_arch = "aarch64")]
        Level::DotProduct => {
            // SAFETY: `isa` includes this instruction.
            unsafe { arm::sdot(rounds) }
            Some(u64::from(rounds) * 24 * 16 * 2)
        }
        #[cfg(target_arch = "aarch64")]
        Level::I8mm => {
            // SAFETY: `isa` includes this instruction.
            unsafe { arm::smmla(rounds) }
            Some(u64::from(rounds) * 24 * 32 * 2)
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use crate::simd::gemm_i8;
    use std::arch::aarch64::*;

    /// 24 independent sums, as in a tile.
    #[target_feature(enable = "dotprod")]
    pub(super) fn sdot(rounds: u32) {
        let mut sums = [vdupq_n_s32(0); 24];
        let (a, b) = (vdupq_n_s8(1), vdupq_n_s8(2));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = gemm_i8::sdot(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }

    /// 24 independent sums, as in a tile.
    #[target_feature(enable = "neon,i8mm")]
    pub(super) fn smmla(rounds: u32) {
        let mut sums = [vdupq_n_s32(0); 24];
        let (a, b) = (vdupq_n_s8(1), vdupq_n_s8(2));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = gemm_i8::smmla(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::simd::gemm_i8::AmxConfigured;
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// 4 independent tiles of sums, as in a micro-kernel.
    ///
    /// # Safety
    ///
    /// `amx_usable` holds.
    pub(super) unsafe fn tdpbssd(rounds: u32) {
        // SAFETY: the caller's promise.
        let _tiles = unsafe { AmxConfigured::new() };
        for _ in 0..rounds {
            // SAFETY: the tiles are configured; `ldtilecfg` set them to zero.
            unsafe {
                asm!(
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, nomem, preserves_flags),
                );
            }
        }
    }

    /// 24 independent sums, as in a tile.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn dpbusd(rounds: u32) {
        let mut sums = [_mm512_setzero_si512(); 24];
        let (a, b) = (_mm512_set1_epi8(1), _mm512_set1_epi8(2));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
                // SAFETY: emits nothing; the compiler must keep the value, and in a register.
                unsafe { asm!("/* {0} */", inout(zmm_reg) * sum, options(nomem, nostack)) };
            }
        }
    }

    /// 12 independent sums, as in a tile.
    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn dpbusd_256(rounds: u32) {
        let mut sums = [_mm256_setzero_si256(); 12];
        let (a, b) = (_mm256_set1_epi8(1), _mm256_set1_epi8(2));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
                // SAFETY: emits nothing; the compiler must keep the value, and in a register.
                unsafe { asm!("/* {0} */", inout(ymm_reg) * sum, options(nomem, nostack)) };
            }
        }
    }

    /// 12 independent sums, as in a tile.
    #[target_feature(enable = "avx2")]
    pub(super) fn madd(rounds: u32) {
        let mut sums = [_mm256_setzero_si256(); 12];
        let (mut a, b) = (_mm256_set1_epi16(1), _mm256_set1_epi16(2));
        for _ in 0..rounds {
            for sum in &mut sums {
                // SAFETY: emits nothing; the product cannot be hoisted out of the loop.
                unsafe { asm!("/* {0} */", inout(ymm_reg) a, options(nomem, nostack)) };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, b));
                // SAFETY: emits nothing; the compiler must keep the value, and in a register.
                unsafe { asm!("/* {0} */", inout(ymm_reg) * sum, options(nomem, nostack)) };
            }
        }
    }
}
