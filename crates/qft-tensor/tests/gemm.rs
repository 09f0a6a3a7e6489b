//! Integer products: every instruction set and thread count gives the bits of the scalar path, and the scalar
//! path those of 64-bit sums. Float products: against `f64`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod product;

use product::{Problem, Values};
use proptest::prelude::*;
use qft_tensor::{
    Buffer, Cpu, CpuConfig, Error, GemmF32, GemmI8, GemmOps, GemmOut, Isa, MAX_K, Orientation,
    Owner,
};
use qft_testing::rng::TestRng;

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::new(CpuConfig { threads, isa }).unwrap()
}

fn cpus() -> Vec<Cpu> {
    Isa::available().into_iter().flat_map(|isa| [cpu(1, isa), cpu(2, isa)]).collect()
}

fn check_all(cpus: &[Cpu], problem: &Problem) {
    let expected = problem.expected();
    for cpu in cpus {
        assert!(problem.run(cpu) == expected, "{cpu:?}: {problem:?}");
    }
}

#[test]
fn borders() {
    let cpus = cpus();
    let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    println!("instruction sets that ran: {}", names.join(", "));
    // Around nothing, one, the dot product limit, tiles, groups, vectors and blocks of rows.
    let (ms, ns) = ([0, 1, 4, 8, 9, 12, 13, 97], [0, 1, 3, 15, 16, 17, 31, 32, 33, 65]);
    for orientation in Orientation::ALL {
        for m in ms {
            for n in ns {
                for k in [0, 1, 3, 4, 5, 16, 63, 64, 65, 130] {
                    check_all(&cpus, &Problem::new(orientation, m, n, k));
                }
            }
        }
    }
}

#[test]
fn missing_scales_units_and_accumulation() {
    let cpus = cpus();
    for orientation in Orientation::ALL {
        for bits in 0..16 {
            // The last contraction is cut in two.
            for (m, n, k) in [(3, 37, 70), (30, 70, 33), (30, 64, 0), (9, 17, 4100)] {
                check_all(
                    &cpus,
                    &Problem {
                        row_scale: bits & 1 != 0,
                        col_scale: bits & 2 != 0,
                        accumulate: bits & 4 != 0,
                        units: bits & 8 != 0,
                        ..Problem::new(orientation, m, n, k)
                    },
                );
            }
        }
    }
}

#[test]
fn extreme_values_do_not_saturate() {
    let cpus = cpus();
    for orientation in Orientation::ALL {
        for (a, b) in [(-128, -128), (-128, 127), (127, -128), (127, 127), (0, -128), (-128, 0)] {
            for (m, n, k) in [(1, 5, MAX_K), (13, 33, MAX_K), (25, 40, 2048), (7, 34, 4097)] {
                let problem = Problem {
                    values: Values::Same(a, b),
                    row_scale: false,
                    col_scale: false,
                    ..Problem::new(orientation, m, n, k)
                };
                let expected = (i32::from(a) * i32::from(b) * k as i32) as f32;
                for cpu in &cpus[2..] {
                    let out = problem.run(cpu);
                    assert!(out.iter().all(|&x| x == expected.to_bits()), "{cpu:?} {problem:?}");
                }
            }
        }
    }
}

/// Contractions that are cut into ranges, and more columns than fit a packed block at once.
#[test]
fn cut_contractions_and_columns() {
    let cpus = cpus();
    for orientation in Orientation::ALL {
        for (m, n, k) in [(100, 70, 2049), (14, 1100, 4100), (9, 300, 40_000), (200, 1090, 2050)] {
            let problem = Problem { accumulate: true, ..Problem::new(orientation, m, n, k) };
            let expected = problem.run(&cpus[0]);
            for cpu in &cpus[1..] {
                assert!(problem.run(cpu) == expected, "{cpu:?}: {problem:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_shape(
        orientation in prop::sample::select(Orientation::ALL.to_vec()),
        (m, n, k) in (0usize..130, 0usize..130, 0usize..300),
        gaps in prop::array::uniform3(0usize..40),
        (row_scale, col_scale, units, accumulate) in any::<(bool, bool, bool, bool)>(),
        seed in any::<u64>(),
    ) {
        let values = Values::Random;
        let problem = Problem {
            orientation, m, n, k, gaps, row_scale, col_scale, units, accumulate, values, seed,
        };
        let expected = problem.expected();
        for isa in Isa::available() {
            for threads in [1, 2] {
                prop_assert!(problem.run(&cpu(threads, isa)) == expected, "{} {}", isa, threads);
            }
        }
    }
}

/// The operation on buffers: views inside wider matrices, against the definition.
#[test]
fn views_of_buffers() {
    let cpu = cpu(2, Isa::detect().unwrap());
    let (m, n, k) = (20, 30, 40);
    let mut rng = TestRng::new(3);
    let wide = 64;
    let host = [rng.int8(wide * wide), rng.int8(wide * wide)];
    let [a, b] = [0, 1].map(|i| Buffer::from_host(&cpu, Owner::Workspace, "x", &host[i]).unwrap());
    for orientation in Orientation::ALL {
        let ((ar, ac), (br, bc)) = match orientation {
            Orientation::Nt => ((m, k), (n, k)),
            Orientation::Nn => ((m, k), (k, n)),
            Orientation::Tn => ((k, m), (k, n)),
        };
        let view = |x, r, c, from: usize| {
            let x: &Buffer<i8> = x;
            let all = x.mat(wide, wide).unwrap();
            all.row_range(from..from + r).unwrap().col_range(2 * from..2 * from + c).unwrap()
        };
        let mut out = Buffer::zeros(&cpu, Owner::Workspace, "out", m * n).unwrap();
        cpu.gemm_i8(GemmI8 {
            orientation,
            a: view(&a, ar, ac, 3),
            b: view(&b, br, bc, 5),
            row_scale: None,
            col_scale: None,
            out: GemmOut::floats(out.mat_mut(m, n).unwrap()),
        })
        .unwrap();
        for (i, &got) in out.host().unwrap().iter().enumerate() {
            let sum: i32 = (0..k)
                .map(|k| {
                    let at = |x: &[i8], first: usize, outer: usize, k_contiguous: bool| {
                        let (r, c) = if k_contiguous { (outer, k) } else { (k, outer) };
                        i32::from(x[(first + r) * wide + 2 * first + c])
                    };
                    at(&host[0], 3, i / n, orientation != Orientation::Tn)
                        * at(&host[1], 5, i % n, orientation == Orientation::Nt)
                })
                .sum();
            assert_eq!(got, sum as f32, "{orientation:?} element {i}");
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let cpu = cpu(1, Isa::SCALAR);
    let long = MAX_K + 1;
    let a = Buffer::<i8>::zeros(&cpu, Owner::Workspace, "a", long).unwrap();
    let scale = Buffer::<f32>::zeros(&cpu, Owner::Workspace, "scale", 3).unwrap();
    let mut out = Buffer::<f32>::zeros(&cpu, Owner::Workspace, "out", 16).unwrap();
    let mut run = |a_shape: (usize, usize), b_shape: (usize, usize), out_shape, scales| {
        cpu.gemm_i8(GemmI8 {
            orientation: Orientation::Nt,
            a: a.mat(a_shape.0, a_shape.1).unwrap(),
            b: a.mat(b_shape.0, b_shape.1).unwrap(),
            row_scale: scales,
            col_scale: None,
            out: {
                let (r, c) = out_shape;
                GemmOut::floats(out.mat_mut(r, c).unwrap())
            },
        })
    };
    assert!(matches!(run((2, 8), (3, 9), (2, 3), None), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(run((2, 8), (3, 8), (3, 2), None), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(
        run((2, 8), (3, 8), (2, 3), Some(scale.all())),
        Err(Error::ShapeMismatch { .. })
    ));
    assert!(matches!(
        run((1, long), (1, long), (1, 1), None),
        Err(Error::AccumulatorRange { k, .. }) if k == long
    ));
    assert!(run((3, 8), (3, 8), (3, 3), Some(scale.all())).is_ok());
}

/// Float products differ from `f64` sums by rounding only: each of the `k` additions and products errs by at
/// most half an ulp of a partial sum, which the sum of magnitudes bounds.
#[test]
fn float_products() {
    let (one, two) = (cpu(1, Isa::detect().unwrap()), cpu(2, Isa::detect().unwrap()));
    let mut rng = TestRng::new(9);
    for orientation in Orientation::ALL {
        for (m, n, k) in
            [(0, 3, 3), (3, 0, 3), (3, 4, 0), (1, 1, 1), (5, 70, 9), (200, 3, 40), (130, 300, 65)]
        {
            let (a_shape, b_shape) = match orientation {
                Orientation::Nt => ((m, k), (n, k)),
                Orientation::Nn => ((m, k), (k, n)),
                Orientation::Tn => ((k, m), (k, n)),
            };
            let (a, b) = (rng.normals(m * k, 1.0), rng.normals(n * k, 1.0));
            let before = rng.normals(m * n, 1.0);
            for accumulate in [false, true] {
                let run = |cpu: &Cpu| {
                    let a = Buffer::from_host(cpu, Owner::Workspace, "a", &a).unwrap();
                    let b = Buffer::from_host(cpu, Owner::Workspace, "b", &b).unwrap();
                    let mut out = Buffer::from_host(cpu, Owner::Workspace, "o", &before).unwrap();
                    cpu.gemm_f32(GemmF32 {
                        orientation,
                        a: a.mat(a_shape.0, a_shape.1).unwrap(),
                        b: b.mat(b_shape.0, b_shape.1).unwrap(),
                        out: out.mat_mut(m, n).unwrap(),
                        accumulate,
                    })
                    .unwrap();
                    out.to_vec(cpu).unwrap()
                };
                let got = run(&one);
                assert_eq!(got, run(&two), "threads change the result of {orientation:?}");
                for (i, &got) in got.iter().enumerate() {
                    let (row, col) = (i / n, i % n);
                    let terms = (0..k).map(|k_| {
                        let a_at = if orientation == Orientation::Tn {
                            k_ * m + row
                        } else {
                            row * k + k_
                        };
                        let b_at = if orientation == Orientation::Nt {
                            col * k + k_
                        } else {
                            k_ * n + col
                        };
                        f64::from(a[a_at]) * f64::from(b[b_at])
                    });
                    let start = if accumulate { f64::from(before[i]) } else { 0.0 };
                    let sum = start + terms.clone().sum::<f64>();
                    let magnitude = start.abs() + terms.map(f64::abs).sum::<f64>();
                    let tolerance = (k + 1) as f64 * f64::from(f32::EPSILON) * magnitude;
                    assert!((f64::from(got) - sum).abs() <= tolerance, "{got} {sum}");
                }
            }
        }
    }
}
