//! The quantized update in weights per second, and in bytes: planes and momentum read and written, gradient read.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "made by Criterion's macros")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qft_optim::{
    LionConfig, LionUpdate, Momentum, MomentumCode, OptimOps, UpdateStats, WeightRounding,
};
use qft_quant::{Error, HybridFormat, HybridMatrix, Residual};
use qft_tensor::{Buffer, Cpu, CpuConfig, Isa, Owner, Purpose, RngKey};
use qft_testing::rng::TestRng;
use std::ops::Range;

const SHAPE: (usize, usize) = (768, 2048);

fn lion(criterion: &mut Criterion) {
    let (rows, cols) = SHAPE;
    let mut rng = TestRng::new(1);
    let w = rng.normals(rows * cols, 0.02);
    let grad = rng.normals(rows * cols, 1e-3);
    for threads in [1, 2] {
        let cpu = Cpu::new(CpuConfig { threads, isa: Isa::detect().unwrap() }).unwrap();
        let mut grad = Buffer::from_host(&cpu, Owner::Gradients, "gradient", &grad).unwrap();
        for residual in [Residual::None, Residual::Bits4, Residual::Bits8] {
            for (protected_fraction, rotated) in [(0.0, false), (0.0, true), (0.01, true)] {
                let format = HybridFormat { residual, protected_fraction, rotated };
                let read = &mut |range: Range<usize>, out: &mut [f32]| {
                    out.copy_from_slice(&w[range.start * cols..range.end * cols]);
                    Ok::<(), Error>(())
                };
                let mut weight = HybridMatrix::encode(&cpu, SHAPE, format, read).unwrap().0;
                let mut momentum = Momentum::zeros(&cpu, SHAPE, MomentumCode::Sqrt).unwrap();
                let mut stats = UpdateStats::zeros(&cpu, 1).unwrap();
                let bytes = rows * (2 * (cols + residual.row_bytes(cols) + cols) + 4 * cols);
                for (unit, throughput) in [
                    ("weights", Throughput::Elements((rows * cols) as u64)),
                    ("bytes", Throughput::Bytes(bytes as u64)),
                ] {
                    let mut group = criterion.benchmark_group(format!("lion-{unit}"));
                    group.throughput(throughput);
                    let mut step = 0;
                    let basis = if rotated { "-rotated" } else { "" };
                    let name = format!("{residual:?}-{protected_fraction}{basis}");
                    group.bench_function(BenchmarkId::new(name, threads), |bench| {
                        bench.iter(|| {
                            step += 1;
                            cpu.lion_update(LionUpdate {
                                weight: &mut weight,
                                momentum: &mut momentum,
                                rows: 0..rows,
                                grad: grad.mat_mut(rows, cols).unwrap(),
                                grad_scale: 1.0,
                                lr: 1e-6,
                                config: LionConfig::default(),
                                rounding: WeightRounding::Stochastic,
                                key: RngKey::new(1, step, 0, Purpose::Update),
                                stats: &mut stats,
                            })
                            .unwrap();
                        });
                    });
                    group.finish();
                }
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = lion
}
criterion_main!(benches);
