//! Conversions between float and INT8 on one thread, and the random words behind stochastic rounding.
//!
//! Throughput counts the bytes of the float matrix, or the bytes of random words.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qft_tensor::rng::BLOCK_WORDS;
use qft_tensor::{
    Buffer, Cpu, CpuConfig, Dequantize, Isa, Kernel, Owner, Philox, Purpose, QMatrix, QuantizeCols,
    QuantizeOps, QuantizeRows, RngKey, Rounding, ScaleAxis,
};
use qft_testing::rng::TestRng;
use std::hint::black_box;
use std::time::Duration;

/// 2 MiB of floats: out of the first two caches.
const ROWS: usize = 256;
const COLS: usize = 2048;
const STOCHASTIC: Rounding = Rounding::Stochastic { key: KEY, first_row: 0 };
const KEY: RngKey = RngKey::new(1, 2, 3, Purpose::StoredGradient);

fn alloc(cpu: &Cpu, axis: ScaleAxis) -> QMatrix {
    QMatrix::alloc(cpu, Owner::Workspace, "q", (ROWS, COLS), axis).unwrap()
}

fn quantize(c: &mut Criterion) {
    let values = TestRng::new(1).normals(ROWS * COLS, 1.0);
    for isa in Isa::available() {
        let cpu = Cpu::new(CpuConfig { threads: 1, isa }).unwrap();
        let x = Buffer::from_host(&cpu, Owner::Workspace, "x", &values).unwrap();
        let mut group = c.benchmark_group(format!("quantize/{isa}"));
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
        group.sample_size(10).throughput(Throughput::Bytes((ROWS * COLS * 4) as u64));
        for (name, rounding) in [("nearest", Rounding::Nearest), ("stochastic", STOCHASTIC)] {
            let mut out = alloc(&cpu, ScaleAxis::Row);
            group.bench_function(BenchmarkId::new("rows", name), |b| {
                b.iter(|| {
                    let x = x.mat(ROWS, COLS).unwrap();
                    let out = &mut out;
                    cpu.quantize_rows(QuantizeRows { x, fold: None, rounding, out }).unwrap();
                });
            });
            let mut out = alloc(&cpu, ScaleAxis::Column);
            group.bench_function(BenchmarkId::new("columns", name), |b| {
                b.iter(|| {
                    let x = x.mat(ROWS, COLS).unwrap();
                    let out = &mut out;
                    cpu.quantize_cols(QuantizeCols { x, fold: None, rounding, out }).unwrap();
                });
            });
        }
        let mut q = alloc(&cpu, ScaleAxis::Row);
        let x = x.mat(ROWS, COLS).unwrap();
        let rounding = Rounding::Nearest;
        cpu.quantize_rows(QuantizeRows { x, fold: None, rounding, out: &mut q }).unwrap();
        let mut back = Buffer::<f32>::zeros(&cpu, Owner::Workspace, "back", ROWS * COLS).unwrap();
        group.bench_function("dequantize", |b| {
            b.iter(|| {
                let out = back.mat_mut(ROWS, COLS).unwrap();
                cpu.dequantize(Dequantize { x: &q, out }).unwrap();
            });
        });
    }
}

/// Adds up blocks, so that all words are needed.
struct Blocks(Philox, u32);

impl Kernel for Blocks {
    type Output = [u32; BLOCK_WORDS];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let mut sum = [0; BLOCK_WORDS];
        for index in 0..self.1 {
            for (sum, word) in sum.iter_mut().zip(self.0.block(index)) {
                *sum ^= word;
            }
        }
        sum
    }
}

fn philox(c: &mut Criterion) {
    let blocks = 1000;
    let mut group = c.benchmark_group("philox");
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    group.throughput(Throughput::Bytes(u64::from(blocks) * BLOCK_WORDS as u64 * 4));
    for isa in Isa::available() {
        group.bench_function(isa.name(), |b| {
            b.iter(|| isa.run(Blocks(Philox::new(black_box(KEY)), blocks)));
        });
    }
}

criterion_group!(benches, quantize, philox);
criterion_main!(benches);
