//! Causal attention of whole documents, and of new tokens to a cache.

use super::expect;
use crate::{Compute, Error};
use qft_tensor::Buffer;

/// Where documents begin in a batch, and `T` at the end: `[documents + 1]`, first 0, rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments(Vec<usize>);

impl Segments {
    /// Checks that the borders rise strictly from 0.
    ///
    /// Errors: shape mismatch.
    pub fn new(borders: Vec<usize>) -> Result<Self, Error> {
        if borders.first() != Some(&0) || borders.windows(2).any(|w| w[0] >= w[1]) {
            return Err(Error::shape("segments", "borders rising from 0", format!("{borders:?}")));
        }
        Ok(Self(borders))
    }

    /// The borders.
    pub fn borders(&self) -> &[usize] {
        &self.0
    }

    /// Number of tokens T.
    pub fn tokens(&self) -> usize {
        self.0[self.0.len() - 1]
    }
}

/// Head layout of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads H.
    pub query: usize,
    /// Key/value heads G; H is a multiple.
    pub key_value: usize,
    /// Head size D.
    pub size: usize,
}

/// What the operands of attention's products are rounded to; sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// Nothing: the reference.
    F32,
    /// The nearest bf16. A GPU leaves them in f32 at sizes that it has no kernel for.
    Bf16,
}

impl Operands {
    /// Head sizes whose operands are rounded in training: those of the tensor-core kernels.
    pub const BF16_SIZES: [usize; 5] = [32, 64, 80, 96, 128];

    /// What heads of `size` use beside linear layers that compute in this format: the same on every device.
    pub fn beside(compute: Compute, size: usize) -> Self {
        match compute {
            Compute::Int8 if Self::BF16_SIZES.contains(&size) => Self::Bf16,
            _ => Self::F32,
        }
    }
}

/// Causal attention within each segment, `softmax(q k^T / sqrt(D)) v`, never materialising `[T, T]`.
///
/// Shapes: `q`, `out` f32 `[T, H * D]`; `k`, `v` f32 `[T, G * D]`; `lse` f32 `[T, H]` receives the log-sum-exp
/// of the scaled scores. Query head h reads key/value head `h / (H / G)`.
/// Numerics: online softmax over key blocks of a fixed size, in f32 but for what `operands` says.
#[derive(Debug)]
pub struct AttentionForward<'a> {
    /// Queries.
    pub q: &'a Buffer<f32>,
    /// Keys.
    pub k: &'a Buffer<f32>,
    /// Values.
    pub v: &'a Buffer<f32>,
    /// Document borders.
    pub segments: &'a Segments,
    /// Head layout.
    pub heads: Heads,
    /// What products read.
    pub operands: Operands,
    /// Saved for the backward pass.
    pub lse: &'a mut Buffer<f32>,
    /// The result.
    pub out: &'a mut Buffer<f32>,
}

impl AttentionForward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "attention_forward";
        let (t, Heads { query, key_value, size }) = (self.segments.tokens(), self.heads);
        expect(OP, t * query * size, self.q.len())?;
        expect(OP, t * query * size, self.out.len())?;
        expect(OP, t * key_value * size, self.k.len())?;
        expect(OP, t * key_value * size, self.v.len())?;
        expect(OP, t * query, self.lse.len())
    }
}

/// Backward of [`AttentionForward`]: overwrites `dq`, `dk`, `dv`.
///
/// The probabilities are recomputed from `lse`. Numerics: f32, sums over queries and over the heads of a
/// group in a fixed order.
#[derive(Debug)]
pub struct AttentionBackward<'a> {
    /// Queries.
    pub q: &'a Buffer<f32>,
    /// Keys.
    pub k: &'a Buffer<f32>,
    /// Values.
    pub v: &'a Buffer<f32>,
    /// Output of the forward pass.
    pub out: &'a Buffer<f32>,
    /// From the forward pass.
    pub lse: &'a Buffer<f32>,
    /// Gradient of the output.
    pub dout: &'a Buffer<f32>,
    /// Document borders.
    pub segments: &'a Segments,
    /// Head layout.
    pub heads: Heads,
    /// As in the forward pass.
    pub operands: Operands,
    /// Gradient of the queries.
    pub dq: &'a mut Buffer<f32>,
    /// Gradient of the keys.
    pub dk: &'a mut Buffer<f32>,
    /// Gradient of the values.
    pub dv: &'a mut Buffer<f32>,
}

impl AttentionBackward<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        const OP: &str = "attention_backward";
        let (t, Heads { query, key_value, size }) = (self.segments.tokens(), self.heads);
        for len in [self.q.len(), self.out.len(), self.dout.len(), self.dq.len()] {
            expect(OP, t * query * size, len)?;
        }
        for len in [self.k.len(), self.v.len(), self.dk.len(), self.dv.len()] {
            expect(OP, t * key_value * size, len)?;
        }
        expect(OP, t * query, self.lse.len())
    }
}

/// Attention of new tokens to a cache that already holds their keys and values.
///
/// Query `i` reads cache rows `0..past + i + 1`. Shapes: `q`, `out` f32 `[n, H * D]`; `k`, `v` f32
/// `[capacity, G * D]` with at least `past + n` rows filled.
#[derive(Debug)]
pub struct AttentionDecode<'a> {
    /// Queries.
    pub q: &'a Buffer<f32>,
    /// Cached keys.
    pub k: &'a Buffer<f32>,
    /// Cached values.
    pub v: &'a Buffer<f32>,
    /// Rows in the cache before these tokens.
    pub past: usize,
    /// Head layout.
    pub heads: Heads,
    /// The result.
    pub out: &'a mut Buffer<f32>,
}

impl AttentionDecode<'_> {
    /// Checks all shapes; the number of new tokens.
    pub fn check(&self) -> Result<usize, Error> {
        const OP: &str = "attention_decode";
        let Heads { query, key_value, size } = self.heads;
        let n = self.q.len() / (query * size).max(1);
        expect(OP, n * query * size, self.q.len())?;
        expect(OP, self.q.len(), self.out.len())?;
        expect(OP, self.k.len(), self.v.len())?;
        let need = (self.past + n) * key_value * size;
        if self.k.len() < need {
            return Err(Error::shape(OP, format_args!("a cache of at least {need}"), self.k.len()));
        }
        Ok(n)
    }
}
