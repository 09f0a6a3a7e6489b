//! Whether this process may use tiles, and whether they compute what they should.

use super::super::{Operand, Product, run, scalar};
use crate::simd::{Isa, Level};
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Whether AMX-INT8 can be used: the processor has it, the kernel permits it, and in this process it gives the
/// sums of the scalar path. Found out once; costs a few milliseconds where AMX exists, nothing elsewhere.
pub(in crate::simd) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        if !present() {
            return false;
        }
        let reason = if !permitted() {
            "the kernel does not permit it (arch_prctl ARCH_REQ_XCOMP_PERM)"
        } else if !self_test() {
            "its known-answer test failed"
        } else {
            return true;
        };
        tracing::warn!("AMX is not used: {reason}; integer products take AVX512-VNNI");
        false
    })
}

/// Whether processor and operating system have tiles of eight registers with 16 rows of 64 bytes, and
/// `tdpbssd`. Needs AVX-512, which the caller has seen.
fn present() -> bool {
    #[allow(unused_unsafe)] // Safe to call since Rust 1.94.
    // SAFETY: x86-64 has the instruction; leaves beyond the last one are not asked for.
    let cpuid = |leaf, sub_leaf| unsafe { __cpuid_count(leaf, sub_leaf) };
    const PALETTE_LEAF: u32 = 0x1d;
    if cpuid(0, 0).eax < PALETTE_LEAF || cpuid(1, 0).ecx >> 27 & 1 == 0 {
        return false; // Without OSXSAVE the operating system saves no wide registers.
    }
    let (amx_tile, amx_int8) = (1 << 24, 1 << 25);
    let features = cpuid(7, 0).edx;
    // SAFETY: OSXSAVE is set, so `xgetbv` exists.
    let saved = unsafe { xcr0() };
    let (tile_config, tile_data) = (1 << 17, 1 << 18);
    let palette = cpuid(PALETTE_LEAF, 1);
    let (row_bytes, registers, rows) =
        (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    features & amx_tile != 0
        && features & amx_int8 != 0
        && saved & tile_config != 0
        && saved & tile_data != 0
        && (row_bytes, registers, rows) == (64, 8, 16)
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: the caller has seen OSXSAVE.
    unsafe { _xgetbv(0) }
}

/// Asks the kernel to save and restore tiles of this process's threads, present and future ones.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: a system call that takes two integers and touches no memory.
    unsafe {
        std::arch::asm!(
            "syscall", inout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _, out("r11") _, options(nostack),
        );
    }
    result == 0
}

/// Elsewhere it is not known how to ask.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Compares products with the scalar path: all orientations, remainders on every axis, whole and cut
/// contractions, tiles of 16 and of 32 rows.
fn self_test() -> bool {
    // On a thread and a pool of its own: waiting inside another pool could run a task that asks for `usable`.
    let test = || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        pool.is_ok_and(|pool| {
            pool.install(|| [(33, 33, 577), (9, 40, 70)].into_iter().all(all_orientations))
        })
    };
    std::thread::Builder::new().spawn(test).is_ok_and(|thread| thread.join().unwrap_or(false))
}

fn all_orientations((m, n, k): (usize, usize, usize)) -> bool {
    let bytes = |count: usize, factor: usize| -> Vec<i8> {
        // Multiples of an odd number run through all bytes; the quotient breaks their period.
        (0..count).map(|i| (i * factor + i / 251) as u8 as i8).collect()
    };
    let (a, b) = (bytes(m * k, 37), bytes(n * k, 89));
    [(true, true), (true, false), (false, false)].into_iter().all(|(a_k, b_k)| {
        let operand = |data, outer, k_contiguous| {
            let stride = if k_contiguous { k } else { outer };
            Operand { data, stride, k_contiguous }
        };
        let product = Product {
            m,
            n,
            k,
            a: operand(&a, m, a_k),
            b: operand(&b, n, b_k),
            row_scale: None,
            col_scale: None,
            inverse_units: None,
            out_stride: n,
            accumulate: false,
        };
        let [mut expected, mut got] = [vec![0; m * n], vec![0; m * n]];
        scalar::run(&product, &mut expected);
        run(Isa(Level::Amx), &product, &mut got);
        expected == got
    })
}
