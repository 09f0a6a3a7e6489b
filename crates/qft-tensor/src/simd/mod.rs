//! Instruction sets: detected at run time, chosen once, bit-identical.
//!
//! Two ways lead to vector code. Elementwise loops are written once in plain Rust as a [`Kernel`] and compiled
//! for each instruction set by [`Isa::run`]; since Rust never reorders or contracts float operations, all
//! versions give the same bits. Integer products use intrinsics, one file per instruction set.

#![allow(unsafe_code)] // Calls of functions compiled for an instruction set that was detected.

pub mod bf16_pairs;
pub mod gemm_f32;
pub mod gemm_i8;
pub mod peak;

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod emulator;

use crate::Error;
use std::fmt;

/// An instruction set that this processor has. Only [`Isa::detect`] and [`Isa::available`] make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    DotProduct,
    #[cfg(target_arch = "aarch64")]
    I8mm,
}

/// Every name of an instruction set, on any processor.
const NAMES: [&str; 8] = ["scalar", "avx2", "avxvnni", "avx512", "vnni", "amx", "dotprod", "i8mm"];

/// A loop to be compiled for each instruction set.
///
/// Implement [`Kernel::run`] with `#[inline(always)]`, and so every function that it calls in its inner loop:
/// only inlined code is compiled for the chosen instruction set.
pub trait Kernel {
    /// What the loop returns.
    type Output;
    /// The loop.
    fn run(self) -> Self::Output;
}

impl Isa {
    /// The plain path: the specification of all others.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// The best instruction set of this processor, or the one that the variable `QFT_ISA` names.
    ///
    /// Errors: [`Error::UnsupportedIsa`] if `QFT_ISA` names something else than [`Isa::available`] lists.
    pub fn detect() -> Result<Self, Error> {
        let available = Self::available();
        match std::env::var("QFT_ISA") {
            Err(_) => Ok(available[available.len() - 1]),
            Ok(name) if name.is_empty() => Ok(available[available.len() - 1]),
            Ok(name) => Self::by_name(&name),
        }
    }

    /// The instruction set of that name.
    ///
    /// Errors: [`Error::UnsupportedIsa`].
    pub fn by_name(name: &str) -> Result<Self, Error> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            let known = NAMES.contains(&name);
            Error::UnsupportedIsa {
                requested: name.to_owned(),
                reason: if known { "this processor lacks it" } else { "there is no such path" },
                available: names.join(", "),
            }
        })
    }

    /// All instruction sets that this processor has, plainest first.
    pub fn available() -> Vec<Self> {
        let mut found = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self(Level::Avx2));
                if is_x86_feature_detected!("avxvnni") {
                    found.push(Self(Level::AvxVnni));
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    found.push(Self(Level::Avx512));
                    if is_x86_feature_detected!("avx512vnni") {
                        found.push(Self(Level::Vnni));
                        if gemm_i8::amx_usable() {
                            found.push(Self(Level::Amx));
                        }
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            found.push(Self(Level::DotProduct));
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                found.push(Self(Level::I8mm));
            }
        }
        found
    }

    /// The name, as in `QFT_ISA`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => "vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Level::DotProduct => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Level::I8mm => "i8mm",
        }
    }

    /// Whether [`Isa::run`] compiles loops for 32 registers of 512 bits.
    pub const fn wide(self) -> bool {
        match self.0 {
            Level::Scalar => false,
            #[cfg(target_arch = "aarch64")]
            Level::DotProduct | Level::I8mm => false,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => false,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Vnni | Level::Amx => true,
        }
    }

    /// Runs `kernel` compiled for this instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Scalar => kernel.run(),
            // Every aarch64 processor has NEON, which the compiler uses unasked.
            #[cfg(target_arch = "aarch64")]
            Level::DotProduct | Level::I8mm => kernel.run(),
            // SAFETY: a value of these levels exists only if `available` saw avx2 and fma.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => unsafe { run_avx2(kernel) },
            // SAFETY: a value of these levels exists only if `available` saw the avx512 features named there.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Vnni | Level::Amx => unsafe { run_avx512(kernel) },
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}
