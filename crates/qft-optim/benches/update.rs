//! The quantized update in weights per second, and in bytes: planes and moments read and written, gradient read.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "made by Criterion's macros")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qft_optim::{
    AdamWConfig, LionConfig, MatrixState, MatrixUpdate, MomentCode, OptimOps, Rule, UpdateStats,
    WeightRounding,
};
use qft_quant::{Error, HybridFormat, HybridMatrix, Residual};
use qft_tensor::{Buffer, Cpu, CpuConfig, Isa, Owner, Purpose, RngKey};
use qft_testing::rng::TestRng;
use std::ops::Range;

const SHAPE: (usize, usize) = (768, 2048);

/// Rules, and codes of their first moment.
const RULES: [(&str, Rule, MomentCode); 3] = [
    ("lion", LION, MomentCode::Sqrt),
    ("lion-4-bits", LION, MomentCode::Sqrt4),
    ("adamw", ADAMW, MomentCode::Sqrt),
];
const LION: Rule = Rule::Lion(LionConfig { beta1: 0.95, beta2: 0.98, weight_decay: 0.0 });
const ADAMW: Rule =
    Rule::AdamW(AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 });

fn updates(criterion: &mut Criterion) {
    let (rows, cols) = SHAPE;
    let mut rng = TestRng::new(1);
    let w = rng.normals(rows * cols, 0.02);
    let grad = rng.normals(rows * cols, 1e-3);
    for threads in [1, 2] {
        let cpu = Cpu::new(CpuConfig { threads, isa: Isa::detect().unwrap() }).unwrap();
        let mut grad = Buffer::from_host(&cpu, Owner::Gradients, "gradient", &grad).unwrap();
        for (name, rule, code) in RULES {
            for residual in [Residual::None, Residual::Bits4, Residual::Bits8] {
                for (protected_fraction, rotated) in [(0.0, false), (0.0, true), (0.01, true)] {
                    let format = HybridFormat { residual, protected_fraction, rotated };
                    let read = &mut |range: Range<usize>, out: &mut [f32]| {
                        out.copy_from_slice(&w[range.start * cols..range.end * cols]);
                        Ok::<(), Error>(())
                    };
                    let weight = HybridMatrix::encode(&cpu, SHAPE, format, read).unwrap().0;
                    let state = MatrixState::zeros(&cpu, SHAPE, rule, code).unwrap();
                    let basis = if rotated { "-rotated" } else { "" };
                    let id = format!("{residual:?}-{protected_fraction}{basis}");
                    let id = BenchmarkId::new(id, threads);
                    bench(criterion, name, id, &cpu, (weight, state, rule), &mut grad);
                }
            }
        }
    }
}

/// One update of a whole matrix, by weights and by bytes.
fn bench(
    criterion: &mut Criterion,
    name: &str,
    id: BenchmarkId,
    cpu: &Cpu,
    (mut weight, mut state, rule): (HybridMatrix, MatrixState, Rule),
    grad: &mut Buffer<f32>,
) {
    let ((rows, cols), mut step) = (SHAPE, 0);
    let mut stats = UpdateStats::zeros(cpu, 1).unwrap();
    let moments: usize =
        state.parts_mut().iter().map(|part| part.len * part.dtype.size_bytes()).sum();
    let bytes =
        rows * (2 * (cols + weight.format().residual.row_bytes(cols)) + 4 * cols) + 2 * moments;
    for (unit, throughput) in [
        ("weights", Throughput::Elements((rows * cols) as u64)),
        ("bytes", Throughput::Bytes(bytes as u64)),
    ] {
        let mut group = criterion.benchmark_group(format!("{name}-{unit}"));
        group.throughput(throughput);
        group.bench_function(id.clone(), |bench| {
            bench.iter(|| {
                step += 1;
                cpu.matrix_update(MatrixUpdate {
                    weight: &mut weight,
                    state: &mut state,
                    rule,
                    rows: 0..rows,
                    grad: grad.mat_mut(rows, cols).unwrap(),
                    grad_scale: 1.0,
                    lr: 1e-6,
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

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = updates
}
criterion_main!(benches);
