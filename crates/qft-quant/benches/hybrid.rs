//! Encoding in bytes of f32 read per second; sparse products in protected weights times tokens per second (two
//! operations each).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "made by Criterion's macros")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qft_quant::{
    DecodeRows, Error, HybridFormat, HybridMatrix, HybridOps, Precision, Residual, SparseBackward,
    SparseForward,
};
use qft_tensor::{
    Buffer, Cpu, CpuConfig, Isa, Owner, QMatrix, QuantizeOps, QuantizeRows, Rounding, ScaleAxis,
};
use qft_testing::rng::TestRng;
use std::ops::Range;

const SHAPE: (usize, usize) = (768, 2048);
const TOKENS: usize = 1024;

fn matrix(cpu: &Cpu, w: &[f32], residual: Residual, protected_fraction: f64) -> HybridMatrix {
    let format = HybridFormat { residual, protected_fraction, rotated: false };
    let read = &mut |rows: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&w[rows.start * SHAPE.1..rows.end * SHAPE.1]);
        Ok::<(), Error>(())
    };
    HybridMatrix::encode(cpu, SHAPE, format, read).unwrap().0
}

fn hybrid(criterion: &mut Criterion) {
    let (rows, cols) = SHAPE;
    let mut rng = TestRng::new(1);
    let w = rng.normals(rows * cols, 0.02);
    for threads in [1, 2] {
        let cpu = Cpu::new(CpuConfig { threads, isa: Isa::detect().unwrap() }).unwrap();
        let mut group = criterion.benchmark_group("encode");
        group.throughput(Throughput::Bytes(4 * (rows * cols) as u64));
        for (residual, fraction) in
            [(Residual::None, 0.0), (Residual::Bits8, 0.0), (Residual::Bits8, 0.01)]
        {
            let name = BenchmarkId::new(format!("{residual:?}-{fraction}"), threads);
            group.bench_function(name, |bench| bench.iter(|| matrix(&cpu, &w, residual, fraction)));
        }
        group.finish();

        let weight = matrix(&cpu, &w, Residual::Bits8, 0.01);
        let mut out = Buffer::alloc(&cpu, Owner::Workspace, "out", rows * cols).unwrap();
        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Bytes(4 * (rows * cols) as u64));
        group.bench_function(BenchmarkId::new("Full", threads), |bench| {
            bench.iter(|| {
                let out = out.mat_mut(rows, cols).unwrap();
                let op =
                    DecodeRows { weight: &weight, rows: 0..rows, precision: Precision::Full, out };
                cpu.decode_rows(op).unwrap();
            });
        });
        group.finish();

        let floats =
            Buffer::from_host(&cpu, Owner::Workspace, "x", &rng.normals(TOKENS * cols, 1.0))
                .unwrap();
        let mut x =
            QMatrix::alloc(&cpu, Owner::Workspace, "x", (TOKENS, cols), ScaleAxis::Row).unwrap();
        cpu.quantize_rows(QuantizeRows {
            x: floats.mat(TOKENS, cols).unwrap(),
            fold: None,
            rounding: Rounding::Nearest,
            out: &mut x,
        })
        .unwrap();
        let mut y =
            Buffer::from_host(&cpu, Owner::Workspace, "y", &rng.normals(TOKENS * rows, 1.0))
                .unwrap();
        let mut dy =
            QMatrix::alloc(&cpu, Owner::Workspace, "dy", (TOKENS, rows), ScaleAxis::Row).unwrap();
        cpu.quantize_rows(QuantizeRows {
            x: y.mat(TOKENS, rows).unwrap(),
            fold: Some(weight.scale.all()),
            rounding: Rounding::Nearest,
            out: &mut dy,
        })
        .unwrap();
        let mut dx = Buffer::zeros(&cpu, Owner::Workspace, "dx", TOKENS * cols).unwrap();
        let mut group = criterion.benchmark_group("sparse");
        let protected = weight.protected.as_ref().map_or(0, |o| o.capacity());
        group.throughput(Throughput::Elements((protected * TOKENS) as u64));
        group.bench_function(BenchmarkId::new("forward", threads), |bench| {
            bench.iter(|| {
                let y = y.mat_mut(TOKENS, rows).unwrap();
                cpu.sparse_forward(SparseForward { x: &x, weight: &weight, rows: 0..rows, y })
                    .unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("backward", threads), |bench| {
            bench.iter(|| {
                let dx = dx.mat_mut(TOKENS, cols).unwrap();
                cpu.sparse_backward(SparseBackward { dy: &dy, weight: &weight, rows: 0..rows, dx })
                    .unwrap();
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = hybrid
}
criterion_main!(benches);
