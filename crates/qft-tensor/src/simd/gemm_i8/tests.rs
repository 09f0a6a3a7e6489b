//! Products on instruction sets that this processor may lack, their machine code emulated: the same bits as by
//! definition. What the processor has, `tests/gemm.rs` tests at full speed.

#[path = "../../../tests/product/mod.rs"]
mod product;

use super::amx_usable;
use crate::simd::{Isa, Level, emulator};
use crate::{Cpu, CpuConfig, MAX_K, Orientation};
use product::{Problem, Values};
use std::sync::atomic::Ordering;

/// Checks `isa`, whose vectors and packing need `base`.
fn check(isa: Isa, base: Level, problems: &[Problem]) {
    if !Isa::available().iter().any(|isa| isa.0 == base) {
        println!("{isa} cannot be emulated: this processor lacks {}", Isa(base));
        return;
    }
    let native = Isa::available().contains(&isa);
    if !native {
        emulator::install();
    }
    let cpu = Cpu::new(CpuConfig { threads: 2, isa }).expect("a pool");
    for problem in problems {
        assert!(problem.run(&cpu) == problem.expected(), "{cpu:?}: {problem:?}");
    }
    let emulated = emulator::EMULATED.load(Ordering::Relaxed);
    println!("{isa}: native {native}, {emulated} instructions emulated so far in this process");
    assert!(native || emulated > 0, "the product did not take the path under test");
}

/// Borders of tiles, panels, groups and cut contractions; accumulation and gaps; sums at the edge of `i32`.
fn problems(sizes: &[usize], steps: &[usize], cut: usize) -> Vec<Problem> {
    let mut problems = Vec::new();
    for orientation in Orientation::ALL {
        for &m in sizes {
            for &n in sizes {
                for &k in steps {
                    let seed = (m * n * k) as u64;
                    problems.push(Problem { seed, ..Problem::new(orientation, m, n, k) });
                }
            }
        }
        let (gaps, accumulate) = ([3, 5, 7], true);
        problems.push(Problem { gaps, accumulate, ..Problem::new(orientation, 37, 41, 70) });
        let (row_scale, col_scale) = (false, false);
        problems.push(Problem {
            row_scale,
            col_scale,
            accumulate,
            ..Problem::new(orientation, 9, 17, cut + 1)
        });
        problems.push(Problem::new(orientation, 9, 17, cut + 1));
        for accumulate in [false, true] {
            let problem = Problem::new(orientation, 37, 64, 70);
            problems.push(Problem { units: true, accumulate, ..problem });
        }
    }
    problems
}

#[test]
fn amx() {
    let mut problems = problems(&[9, 16, 17, 33], &[1, 64, 65, 130], 512);
    // Several tasks, each of several panels of rows and columns, in three ranges.
    problems.push(Problem::new(Orientation::Nt, 150, 70, 1100));
    problems.push(Problem {
        values: Values::Same(-128, -128),
        ..Problem::new(Orientation::Tn, 9, 3, MAX_K)
    });
    check(Isa(Level::Amx), Level::Vnni, &problems);
    println!("offered on this machine: {}", amx_usable());
}

#[test]
fn avx_vnni() {
    let mut problems = problems(&[9, 12, 15, 17], &[1, 4, 33, 66], 4096);
    // Sums of shifted bytes wrap around.
    problems.push(Problem {
        values: Values::Same(-128, 127),
        ..Problem::new(Orientation::Tn, 1, 3, MAX_K)
    });
    check(Isa(Level::AvxVnni), Level::Avx2, &problems);
}
