//! What the tests of the layer operations share.

#![allow(dead_code, unreachable_pub)] // Each test file uses a part.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_autograd::ops::Operands;
use qft_autograd::{Heads, Segments};
use qft_tensor::{Buffer, Cpu, CpuConfig, Element, Isa, Owner};
use qft_testing::reference::Attention;
use qft_testing::rng::TestRng;

/// A processor with some instruction set and number of threads.
pub fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::new(CpuConfig { threads, isa }).unwrap()
}

/// The best instruction set, on two threads.
pub fn best() -> Cpu {
    cpu(*Isa::available().last().unwrap(), 2)
}

/// Every instruction set of this machine on one and on two threads.
pub fn all() -> Vec<(String, Cpu)> {
    let isas = Isa::available();
    println!("instruction sets: {}", isas.iter().map(|i| i.name()).collect::<Vec<_>>().join(", "));
    (isas.into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]))
        .map(|(isa, threads)| (format!("{isa} on {threads} threads"), cpu(isa, threads)))
        .collect()
}

/// Values in device memory.
pub fn put<T: Element>(cpu: &Cpu, values: &[T]) -> Buffer<T> {
    Buffer::from_host(cpu, Owner::Activations, "test", values).unwrap()
}

/// Device memory full of garbage.
pub fn garbage(cpu: &Cpu, len: usize) -> Buffer<f32> {
    put(cpu, &vec![f32::NAN; len])
}

/// The contents of device memory.
pub fn get<T: Element>(buffer: &Buffer<T>) -> Vec<T> {
    buffer.host().unwrap().to_vec()
}

/// The bits of floats, for comparisons that must be exact.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Documents of these lengths, end to end.
pub fn borders(lengths: &[usize]) -> Vec<usize> {
    let mut borders = vec![0];
    borders.extend(lengths.iter().scan(0, |end, len| {
        *end += len;
        Some(*end)
    }));
    borders
}

/// An attention and its inputs.
pub struct AttentionCase {
    pub shape: Attention,
    pub heads: Heads,
    pub segments: Segments,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub dout: Vec<f32>,
}

impl AttentionCase {
    /// Normal inputs; documents of `lengths`, `(query heads, key/value heads, head size)`.
    pub fn new(
        seed: u64,
        lengths: &[usize],
        (query, key_value, size): (usize, usize, usize),
    ) -> Self {
        let mut rng = TestRng::new(seed);
        let borders = borders(lengths);
        let tokens = borders[borders.len() - 1];
        let (wide, narrow) = (tokens * query * size, tokens * key_value * size);
        Self {
            segments: Segments::new(borders.clone()).unwrap(),
            shape: Attention { borders, query, key_value, size },
            heads: Heads { query, key_value, size },
            q: rng.normals(wide, 1.0),
            k: rng.normals(narrow, 1.0),
            v: rng.normals(narrow, 1.0),
            dout: rng.normals(wide, 1.0),
        }
    }
}

/// Runs forward and backward: `[out, lse, dq, dk, dv]`.
pub fn run_attention(cpu: &Cpu, case: &AttentionCase, operands: Operands) -> [Vec<f32>; 5] {
    use qft_autograd::LayerOps;
    use qft_autograd::ops::{AttentionBackward, AttentionForward};
    let (segments, heads) = (&case.segments, case.heads);
    let (q, k, v) = (put(cpu, &case.q), put(cpu, &case.k), put(cpu, &case.v));
    let dout = put(cpu, &case.dout);
    let (wide, narrow) = (case.q.len(), case.k.len());
    let mut lse = garbage(cpu, segments.tokens() * heads.query);
    let mut out = garbage(cpu, wide);
    cpu.attention_forward(AttentionForward {
        q: &q,
        k: &k,
        v: &v,
        segments,
        heads,
        operands,
        lse: &mut lse,
        out: &mut out,
    })
    .unwrap();
    let (mut dq, mut dk, mut dv) = (garbage(cpu, wide), garbage(cpu, narrow), garbage(cpu, narrow));
    cpu.attention_backward(AttentionBackward {
        q: &q,
        k: &k,
        v: &v,
        out: &out,
        lse: &lse,
        dout: &dout,
        segments,
        heads,
        operands,
        dq: &mut dq,
        dk: &mut dk,
        dv: &mut dv,
    })
    .unwrap();
    [get(&out), get(&lse), get(&dq), get(&dk), get(&dv)]
}
