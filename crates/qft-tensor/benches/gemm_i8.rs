//! Integer products of linear layers, per model shape and orientation.
//!
//! Criterion prints operations per second ("elements": two per multiply-add, packing and scaling included). Before
//! each group the bench prints the rate of the multiply instruction on registers alone, and after each product
//! its share of that.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qft_tensor::simd::gemm_i8::{self, Operand, Product};
use qft_tensor::simd::peak;
use qft_tensor::{Cpu, CpuConfig, Isa, Orientation};
use qft_testing::rng::TestRng;
use std::time::{Duration, Instant};

/// Tokens, input features, output features.
const SHAPES: [(&str, usize, usize, usize); 3] =
    [("15M", 1024, 288, 768), ("110M", 1024, 768, 2048), ("1.1B", 2048, 2048, 5632)];
/// Rows in generation.
const FEW: [usize; 3] = [1, 4, 8];

/// The best of some runs, in seconds: what the code costs when nobody else uses the core.
fn best(budget: Duration, mut f: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < budget {
        let run = Instant::now();
        f();
        best = best.min(run.elapsed().as_secs_f64());
    }
    best
}

fn products(c: &mut Criterion) {
    for isa in Isa::available().into_iter().rev() {
        if isa.name() == "avx512" {
            continue; // Without VNNI, integer products take the AVX2 path.
        }
        let Some(operations) = peak::int8_operations(isa, 1) else { continue };
        let rounds = 100_000;
        let seconds = best(Duration::from_millis(200), || {
            peak::int8_operations(isa, rounds);
        });
        let peak = f64::from(rounds) * operations as f64 / seconds;
        println!("{isa}: {:.0} GOP/s on registers alone, one thread", peak / 1e9);
        let cpu = Cpu::new(CpuConfig { threads: 1, isa }).expect("one thread");
        let mut group = c.benchmark_group(format!("gemm_i8/{isa}"));
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600));
        group.sample_size(10);
        let mut rng = TestRng::new(1);
        let mut bench = |name: String,
                         orientation: Orientation,
                         (m, n, k): (usize, usize, usize)| {
            let (a, b) = (rng.int8(m * k), rng.int8(n * k));
            let (row_scale, col_scale) = (rng.normals(m, 1.0), rng.normals(n, 1.0));
            let mut out = vec![0; m * n];
            let operand = |data, outer, k_contiguous| Operand {
                data,
                stride: if k_contiguous { k } else { outer },
                k_contiguous,
            };
            let product = Product {
                m,
                n,
                k,
                a: operand(&a, m, orientation != Orientation::Tn),
                b: operand(&b, n, orientation == Orientation::Nt),
                row_scale: Some(&row_scale),
                col_scale: Some(&col_scale),
                inverse_units: None,
                out_stride: n,
                accumulate: false,
            };
            let operations = 2 * m as u64 * n as u64 * k as u64;
            group.throughput(Throughput::Elements(operations));
            group.bench_function(BenchmarkId::new(name, format!("{orientation:?}")), |bencher| {
                cpu.install(|| bencher.iter(|| gemm_i8::run(isa, &product, &mut out)));
            });
            let seconds = best(Duration::from_millis(300), || {
                cpu.install(|| gemm_i8::run(isa, &product, &mut out));
            });
            let rate = operations as f64 / seconds;
            println!("    best {:.0} GOP/s, {:.0} % of registers", rate / 1e9, 100.0 * rate / peak);
        };
        for (model, t, fan_in, fan_out) in SHAPES {
            // y = x w^T, dx = dy w, dw = dy^T x.
            bench(model.into(), Orientation::Nt, (t, fan_out, fan_in));
            bench(model.into(), Orientation::Nn, (t, fan_in, fan_out));
            bench(model.into(), Orientation::Tn, (fan_out, fan_in, t));
        }
        let (model, _, fan_in, fan_out) = SHAPES[2];
        for m in FEW {
            bench(format!("{model} {m} rows"), Orientation::Nt, (m, fan_out, fan_in));
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
