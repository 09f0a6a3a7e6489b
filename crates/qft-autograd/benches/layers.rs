//! Layer operations on the CPU: attention in floating-point operations, the others in bytes moved.
//!
//! Attention counts the visible pairs alone: `4 D` operations a pair and head forward, `10 D` backward.

#![allow(missing_docs)] // The harness makes public functions.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qft_autograd::ops::{
    AttentionBackward, AttentionDecode, AttentionForward, EmbedBackward, EmbedForward,
    LossGradient, LossStats, Operands, RmsNormBackward, RmsNormForward, Rope, SwigluBackward,
    SwigluForward,
};
use qft_autograd::{ActivationsOut, Heads, LayerOps, Segments, TableRef};
use qft_quant::{HybridFormat, HybridMatrix, Residual};
use qft_tensor::{Buffer, Cpu, CpuConfig, Isa, Owner, QMatrix, ScaleAxis};
use qft_testing::rng::TestRng;
use std::ops::Range;

fn cpu(threads: usize) -> Cpu {
    let isa = Isa::detect().expect("QFT_ISA names an instruction set");
    Cpu::new(CpuConfig { threads, isa }).expect("threads start")
}

fn normals(cpu: &Cpu, rng: &mut TestRng, len: usize) -> Buffer<f32> {
    let values = rng.normals(len, 1.0);
    Buffer::from_host(cpu, Owner::Activations, "bench", &values).expect("memory")
}

/// `(name, documents, tokens of each, heads)`.
const ATTENTION: &[(&str, usize, usize, Heads)] = &[
    ("4x256 H12 D64", 4, 256, Heads { query: 12, key_value: 12, size: 64 }),
    ("1x2048 H12 D64", 1, 2048, Heads { query: 12, key_value: 12, size: 64 }),
    ("1x2048 H32 G4 D64", 1, 2048, Heads { query: 32, key_value: 4, size: 64 }),
    ("1x1024 H8 D128", 1, 1024, Heads { query: 8, key_value: 8, size: 128 }),
];

fn attention(c: &mut Criterion) {
    for threads in [1, 2] {
        let cpu = cpu(threads);
        let mut rng = TestRng::new(1);
        for (&(name, documents, length, heads), operands) in
            ATTENTION.iter().flat_map(|case| [(case, Operands::F32), (case, Operands::Bf16)])
        {
            let tokens = documents * length;
            let segments =
                Segments::new((0..=documents).map(|i| i * length).collect()).expect("borders rise");
            let (wide, narrow) =
                (tokens * heads.query * heads.size, tokens * heads.key_value * heads.size);
            let (q, dout) = (normals(&cpu, &mut rng, wide), normals(&cpu, &mut rng, wide));
            let (k, v) = (normals(&cpu, &mut rng, narrow), normals(&cpu, &mut rng, narrow));
            let mut out = normals(&cpu, &mut rng, wide);
            let mut lse = normals(&cpu, &mut rng, tokens * heads.query);
            let pairs = documents * length * (length + 1) / 2 * heads.query * heads.size;
            let mut group = c.benchmark_group("attention");
            group.sample_size(10);
            group.throughput(Throughput::Elements(4 * pairs as u64));
            group.bench_function(
                BenchmarkId::new(format!("forward, {operands:?}, {threads} threads"), name),
                |b| {
                    b.iter(|| {
                        cpu.attention_forward(AttentionForward {
                            q: &q,
                            k: &k,
                            v: &v,
                            segments: &segments,
                            heads,
                            operands,
                            lse: &mut lse,
                            out: &mut out,
                        })
                    });
                },
            );
            let mut dq = normals(&cpu, &mut rng, wide);
            let (mut dk, mut dv) =
                (normals(&cpu, &mut rng, narrow), normals(&cpu, &mut rng, narrow));
            group.throughput(Throughput::Elements(10 * pairs as u64));
            group.bench_function(
                BenchmarkId::new(format!("backward, {operands:?}, {threads} threads"), name),
                |b| {
                    b.iter(|| {
                        cpu.attention_backward(AttentionBackward {
                            q: &q,
                            k: &k,
                            v: &v,
                            out: &out,
                            lse: &lse,
                            dout: &dout,
                            segments: &segments,
                            heads,
                            operands,
                            dq: &mut dq,
                            dk: &mut dk,
                            dv: &mut dv,
                        })
                    });
                },
            );
        }
    }
}

fn decode(c: &mut Criterion) {
    let (cpu, mut rng) = (cpu(2), TestRng::new(6));
    let heads = Heads { query: 32, key_value: 4, size: 64 };
    let mut group = c.benchmark_group("attention");
    for (new, past) in [(1, 2047), (256, 0)] {
        let cache = (past + new) * heads.key_value * heads.size;
        let q = normals(&cpu, &mut rng, new * heads.query * heads.size);
        let (k, v) = (normals(&cpu, &mut rng, cache), normals(&cpu, &mut rng, cache));
        let mut out = normals(&cpu, &mut rng, q.len());
        let pairs = (new * past + new * (new + 1) / 2) * heads.query * heads.size;
        group.throughput(Throughput::Elements(4 * pairs as u64));
        group.bench_function(format!("decode {new} after {past}"), |b| {
            b.iter(|| {
                let (q, k, v, out) = (&q, &k, &v, &mut out);
                cpu.attention_decode(AttentionDecode { q, k, v, past, heads, out })
            });
        });
    }
}

const ROWS: usize = 1024;
const CHANNELS: usize = 2048;
const FEED_FORWARD: usize = 5632;

fn rmsnorm(c: &mut Criterion) {
    let (cpu, mut rng) = (cpu(2), TestRng::new(2));
    let len = ROWS * CHANNELS;
    let (x, gain) = (normals(&cpu, &mut rng, len), normals(&cpu, &mut rng, CHANNELS));
    let (mut rstd, mut out) = (normals(&cpu, &mut rng, ROWS), normals(&cpu, &mut rng, len));
    let mut int8 =
        QMatrix::alloc(&cpu, Owner::Activations, "bench", (ROWS, CHANNELS), ScaleAxis::Row)
            .expect("memory");
    let mut group = c.benchmark_group("rmsnorm");
    group.throughput(Throughput::Bytes(8 * len as u64));
    group.bench_function("forward to f32", |b| {
        b.iter(|| {
            let out = ActivationsOut::Float(&mut out);
            let (x, gain, rstd) = (&x, &gain, &mut rstd);
            cpu.rmsnorm_forward(RmsNormForward { x, gain, eps: 1e-5, rstd, out })
        });
    });
    group.throughput(Throughput::Bytes(5 * len as u64));
    group.bench_function("forward to i8", |b| {
        b.iter(|| {
            let out = ActivationsOut::Int8(&mut int8);
            let (x, gain, rstd) = (&x, &gain, &mut rstd);
            cpu.rmsnorm_forward(RmsNormForward { x, gain, eps: 1e-5, rstd, out })
        });
    });
    let dy = normals(&cpu, &mut rng, len);
    let mut dgain = normals(&cpu, &mut rng, CHANNELS);
    group.throughput(Throughput::Bytes(16 * len as u64));
    group.bench_function("backward", |b| {
        b.iter(|| {
            let (x, gain, rstd, dx, dgain) = (&x, &gain, &rstd, &mut out, &mut dgain);
            cpu.rmsnorm_backward(RmsNormBackward { x, gain, rstd, dy: &dy, dx, dgain })
        });
    });
}

fn swiglu(c: &mut Criterion) {
    let (cpu, mut rng) = (cpu(2), TestRng::new(3));
    let len = ROWS * FEED_FORWARD;
    let (mut gate, mut up) = (normals(&cpu, &mut rng, len), normals(&cpu, &mut rng, len));
    let mut out = normals(&cpu, &mut rng, len);
    let mut int8 =
        QMatrix::alloc(&cpu, Owner::Activations, "bench", (ROWS, FEED_FORWARD), ScaleAxis::Row)
            .expect("memory");
    let mut group = c.benchmark_group("swiglu");
    group.throughput(Throughput::Bytes(12 * len as u64));
    group.bench_function("forward to f32", |b| {
        b.iter(|| {
            let out = ActivationsOut::Float(&mut out);
            cpu.swiglu_forward(SwigluForward { gate: &gate, up: &up, rows: ROWS, out })
        });
    });
    group.throughput(Throughput::Bytes(9 * len as u64));
    group.bench_function("forward to i8", |b| {
        b.iter(|| {
            let out = ActivationsOut::Int8(&mut int8);
            cpu.swiglu_forward(SwigluForward { gate: &gate, up: &up, rows: ROWS, out })
        });
    });
    group.throughput(Throughput::Bytes(20 * len as u64));
    group.bench_function("backward", |b| {
        b.iter(|| cpu.swiglu_backward(SwigluBackward { dy: &out, gate: &mut gate, up: &mut up }));
    });
}

fn rope(c: &mut Criterion) {
    let (cpu, mut rng) = (cpu(2), TestRng::new(4));
    let (heads, size) = (32, 64);
    let mut x = normals(&cpu, &mut rng, ROWS * heads * size);
    let positions: Vec<u32> = (0..ROWS as u32).map(|t| t % 256).collect();
    let positions =
        Buffer::from_host(&cpu, Owner::Activations, "bench", &positions).expect("memory");
    let inv_freq: Vec<f32> = (0..size / 2).map(|i| 1e4f32.powf(-(i as f32) / 32.0)).collect();
    let inv_freq = Buffer::from_host(&cpu, Owner::Activations, "bench", &inv_freq).expect("memory");
    let mut group = c.benchmark_group("rope");
    group.throughput(Throughput::Bytes(8 * x.len() as u64));
    group.bench_function("in place", |b| {
        b.iter(|| {
            let (x, positions, inv_freq) = (&mut x, &positions, &inv_freq);
            cpu.rope(Rope { x, positions, inv_freq, heads, size, scale: 1.0, inverse: false })
        });
    });
}

fn embedding(c: &mut Criterion) {
    let (cpu, mut rng) = (cpu(2), TestRng::new(7));
    let vocab = 4096;
    let weights = rng.normals(vocab * CHANNELS, 0.02);
    let format =
        HybridFormat { residual: Residual::Bits8, protected_fraction: 0.005, rotated: true };
    let mut read = |rows: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&weights[rows.start * CHANNELS..rows.end * CHANNELS]);
        Ok::<_, qft_quant::Error>(())
    };
    let (table, _) =
        HybridMatrix::encode(&cpu, (vocab, CHANNELS), format, &mut read).expect("finite weights");
    let ids: Vec<u32> = (0..ROWS).map(|_| rng.below(vocab) as u32).collect();
    let ids = Buffer::from_host(&cpu, Owner::Activations, "bench", &ids).expect("memory");
    let mut out = normals(&cpu, &mut rng, ROWS * CHANNELS);
    let mut group = c.benchmark_group("embedding");
    group.throughput(Throughput::Bytes(6 * out.len() as u64));
    group.bench_function("hybrid rows", |b| {
        b.iter(|| {
            let (ids, out, table) = (&ids, &mut out, TableRef::Hybrid(&table));
            cpu.embed_forward(EmbedForward { ids, table, vocab, channels: CHANNELS, out })
        });
    });
    let dy = normals(&cpu, &mut rng, ROWS * CHANNELS);
    let mut grad = normals(&cpu, &mut rng, vocab * CHANNELS);
    group.throughput(Throughput::Bytes(12 * dy.len() as u64));
    group.bench_function("backward", |b| {
        b.iter(|| {
            let grad = grad.mat_mut(vocab, CHANNELS)?;
            cpu.embed_backward(EmbedBackward { ids: &ids, dy: &dy, rows: 0..vocab, grad })
        });
    });
}

fn loss(c: &mut Criterion) {
    let (cpu, mut rng) = (cpu(2), TestRng::new(5));
    let (rows, cols) = (ROWS, 2048);
    let mut logits = normals(&cpu, &mut rng, rows * cols);
    let targets: Vec<u32> = (0..rows).map(|_| rng.below(cols) as u32).collect();
    let targets = Buffer::from_host(&cpu, Owner::Loss, "bench", &targets).expect("memory");
    let mut max = normals(&cpu, &mut rng, rows);
    let (mut sum, mut target_logit) =
        (normals(&cpu, &mut rng, rows), normals(&cpu, &mut rng, rows));
    let mut group = c.benchmark_group("loss block");
    group.throughput(Throughput::Bytes(4 * logits.len() as u64));
    group.bench_function("statistics", |b| {
        b.iter(|| {
            cpu.loss_stats(LossStats {
                logits: &logits,
                start: 0,
                cols,
                targets: &targets,
                max: &mut max,
                sum: &mut sum,
                target_logit: &mut target_logit,
            })
        });
    });
    group.throughput(Throughput::Bytes(8 * logits.len() as u64));
    group.bench_function("gradient", |b| {
        b.iter(|| {
            cpu.loss_gradient(LossGradient {
                logits: &mut logits,
                start: 0,
                cols,
                targets: &targets,
                max: &max,
                sum: &sum,
                weight: 1.0,
            })
        });
    });
}

criterion_group!(benches, attention, decode, rmsnorm, swiglu, rope, embedding, loss);
criterion_main!(benches);
