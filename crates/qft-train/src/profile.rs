//! Where the time of a step goes: a device that passes everything on to another, and keeps a clock.

use crate::TrainOps;
use qft_autograd::ops::*;
use qft_optim::{FloatUpdate, LionUpdate, OptimOps, SquareSum};
use qft_quant::{DecodeRows, HybridOps, SparseBackward, SparseForward};
use qft_tensor::buffer::RawBuffer;
use qft_tensor::{
    DType, Dequantize, Device, DeviceKind, GemmF32, GemmI8, GemmOps, Ledger, Orientation, Owner,
    QuantizeCols, QuantizeOps, QuantizeRows, Requantize,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// INT8 products of forward passes.
    GemmForward,
    /// INT8 products for gradients of inputs.
    GemmInput,
    /// INT8 products for gradients of weights.
    GemmWeight,
    /// f32 products.
    GemmFloat,
    /// Quantization of activations and gradients, apart from what is fused with norm and SwiGLU.
    Quantize,
    /// Products with protected features.
    Sparse,
    /// Decoding of weights for float products, embedding and export.
    Decode,
    /// Attention, forward.
    AttentionForward,
    /// Attention, backward.
    AttentionBackward,
    /// RMSNorm, forward (with quantization) and backward.
    Norm,
    /// Rotary embedding.
    Rope,
    /// SwiGLU, forward (with quantization) and backward.
    Swiglu,
    /// Log-sum-exp and gradient of logits.
    Loss,
    /// Lookup and gather, forward and backward.
    Embedding,
    /// Rounding of the residual stream.
    Stream,
    /// Updates of weights and momentum.
    Update,
    /// Copies and zeroing.
    Memory,
}

impl Phase {
    /// All phases, in the order of reports.
    pub const ALL: [Self; 17] = [
        Self::GemmForward,
        Self::GemmInput,
        Self::GemmWeight,
        Self::GemmFloat,
        Self::Quantize,
        Self::Sparse,
        Self::Decode,
        Self::AttentionForward,
        Self::AttentionBackward,
        Self::Norm,
        Self::Rope,
        Self::Swiglu,
        Self::Loss,
        Self::Embedding,
        Self::Stream,
        Self::Update,
        Self::Memory,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GemmForward => "gemm forward",
            Self::GemmInput => "gemm dX",
            Self::GemmWeight => "gemm dW",
            Self::GemmFloat => "gemm float",
            Self::Quantize => "quantize",
            Self::Sparse => "protected",
            Self::Decode => "decode",
            Self::AttentionForward => "attention",
            Self::AttentionBackward => "attention back",
            Self::Norm => "norm",
            Self::Rope => "rope",
            Self::Swiglu => "swiglu",
            Self::Loss => "loss",
            Self::Embedding => "embedding",
            Self::Stream => "stream",
            Self::Update => "update",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug, Default)]
struct Counter {
    nanoseconds: AtomicU64,
    /// Multiplications and additions, for phases that count them.
    operations: AtomicU64,
}

/// Passes every operation on to a device and adds up its time by phase.
///
/// Operations of a device must be complete when they return, or the clock is wrong.
#[derive(Debug)]
pub struct Profiled {
    inner: Arc<dyn TrainOps>,
    counters: [Counter; Phase::ALL.len()],
}

/// Time and work of one phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhaseTotal {
    /// The phase.
    pub phase: Phase,
    /// Its seconds.
    pub seconds: f64,
    /// Its multiplications and additions; 0 where they are not counted.
    pub operations: u64,
}

impl Profiled {
    /// Around `inner`, with all clocks at zero.
    pub fn new(inner: Arc<dyn TrainOps>) -> Self {
        Self { inner, counters: Default::default() }
    }

    /// The totals since the last call, which are set back to zero.
    pub fn take(&self) -> Vec<PhaseTotal> {
        let total = |(phase, counter): (Phase, &Counter)| PhaseTotal {
            phase,
            seconds: counter.nanoseconds.swap(0, Ordering::Relaxed) as f64 * 1e-9,
            operations: counter.operations.swap(0, Ordering::Relaxed),
        };
        Phase::ALL.into_iter().zip(&self.counters).map(total).collect()
    }

    fn time<R>(&self, phase: Phase, operations: usize, f: impl FnOnce(&dyn TrainOps) -> R) -> R {
        let start = Instant::now();
        let result = f(&*self.inner);
        let counter = &self.counters[phase as usize];
        counter.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        counter.operations.fetch_add(operations as u64, Ordering::Relaxed);
        result
    }
}

impl Device for Profiled {
    fn kind(&self) -> DeviceKind {
        self.inner.kind()
    }

    fn ledger(&self) -> &Arc<Ledger> {
        self.inner.ledger()
    }

    fn alloc_raw(
        &self,
        owner: Owner,
        name: &'static str,
        dtype: DType,
        len: usize,
    ) -> Result<RawBuffer, qft_tensor::Error> {
        self.time(Phase::Memory, 0, |d| d.alloc_raw(owner, name, dtype, len))
    }

    fn upload_raw(
        &self,
        dst: &mut RawBuffer,
        offset: usize,
        src: &[u8],
    ) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Memory, 0, |d| d.upload_raw(dst, offset, src))
    }

    fn download_raw(
        &self,
        src: &RawBuffer,
        offset: usize,
        dst: &mut [u8],
    ) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Memory, 0, |d| d.download_raw(src, offset, dst))
    }

    fn copy_raw(
        &self,
        dst: &mut RawBuffer,
        dst_offset: usize,
        src: &RawBuffer,
        src_offset: usize,
        bytes: usize,
    ) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Memory, 0, |d| d.copy_raw(dst, dst_offset, src, src_offset, bytes))
    }

    fn zero_raw(
        &self,
        dst: &mut RawBuffer,
        offset: usize,
        bytes: usize,
    ) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Memory, 0, |d| d.zero_raw(dst, offset, bytes))
    }

    fn synchronize(&self) -> Result<(), qft_tensor::Error> {
        self.inner.synchronize()
    }

    fn trim(&self) {
        self.inner.trim();
    }
}

impl GemmOps for Profiled {
    fn gemm_i8(&self, op: GemmI8<'_>) -> Result<(), qft_tensor::Error> {
        let (m, n, k) = op.check()?;
        let phase = match op.orientation {
            Orientation::Nt => Phase::GemmForward,
            Orientation::Nn => Phase::GemmInput,
            Orientation::Tn => Phase::GemmWeight,
        };
        self.time(phase, 2 * m * n * k, |d| d.gemm_i8(op))
    }

    fn gemm_f32(&self, op: GemmF32<'_>) -> Result<(), qft_tensor::Error> {
        let (m, n, k) = op.check()?;
        self.time(Phase::GemmFloat, 2 * m * n * k, |d| d.gemm_f32(op))
    }
}

impl QuantizeOps for Profiled {
    fn quantize_rows(&self, op: QuantizeRows<'_>) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Quantize, 0, |d| d.quantize_rows(op))
    }

    fn quantize_cols(&self, op: QuantizeCols<'_>) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Quantize, 0, |d| d.quantize_cols(op))
    }

    fn dequantize(&self, op: Dequantize<'_>) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Quantize, 0, |d| d.dequantize(op))
    }

    fn requantize(&self, op: Requantize<'_>) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Quantize, 0, |d| d.requantize(op))
    }
}

impl HybridOps for Profiled {
    fn decode_rows(&self, op: DecodeRows<'_>) -> Result<(), qft_quant::Error> {
        self.time(Phase::Decode, 0, |d| d.decode_rows(op))
    }

    fn sparse_forward(&self, op: SparseForward<'_>) -> Result<(), qft_quant::Error> {
        self.time(Phase::Sparse, 0, |d| d.sparse_forward(op))
    }

    fn sparse_backward(&self, op: SparseBackward<'_>) -> Result<(), qft_quant::Error> {
        self.time(Phase::Sparse, 0, |d| d.sparse_backward(op))
    }
}

impl LayerOps for Profiled {
    fn embed_forward(&self, op: EmbedForward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Embedding, 0, |d| d.embed_forward(op))
    }

    fn embed_backward(&self, op: EmbedBackward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Embedding, 0, |d| d.embed_backward(op))
    }

    fn gather_rows(&self, op: GatherRows<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Embedding, 0, |d| d.gather_rows(op))
    }

    fn scatter_rows(&self, op: ScatterRows<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Embedding, 0, |d| d.scatter_rows(op))
    }

    fn rmsnorm_forward(&self, op: RmsNormForward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Norm, 0, |d| d.rmsnorm_forward(op))
    }

    fn rmsnorm_backward(&self, op: RmsNormBackward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Norm, 0, |d| d.rmsnorm_backward(op))
    }

    fn rope(&self, op: Rope<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Rope, 0, |d| d.rope(op))
    }

    fn attention_forward(&self, op: AttentionForward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::AttentionForward, 0, |d| d.attention_forward(op))
    }

    fn attention_backward(&self, op: AttentionBackward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::AttentionBackward, 0, |d| d.attention_backward(op))
    }

    fn attention_decode(&self, op: AttentionDecode<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::AttentionForward, 0, |d| d.attention_decode(op))
    }

    fn swiglu_forward(&self, op: SwigluForward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Swiglu, 0, |d| d.swiglu_forward(op))
    }

    fn swiglu_backward(&self, op: SwigluBackward<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Swiglu, 0, |d| d.swiglu_backward(op))
    }

    fn loss_stats(&self, op: LossStats<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Loss, 0, |d| d.loss_stats(op))
    }

    fn loss_gradient(&self, op: LossGradient<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Loss, 0, |d| d.loss_gradient(op))
    }

    fn to_bf16(&self, op: ToBf16<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Stream, 0, |d| d.to_bf16(op))
    }

    fn from_bf16(&self, op: FromBf16<'_>) -> Result<(), qft_autograd::Error> {
        self.time(Phase::Stream, 0, |d| d.from_bf16(op))
    }
}

impl OptimOps for Profiled {
    fn lion_update(&self, op: LionUpdate<'_>) -> Result<(), qft_optim::Error> {
        self.time(Phase::Update, 0, |d| d.lion_update(op))
    }

    fn float_update(&self, op: FloatUpdate<'_>) -> Result<(), qft_optim::Error> {
        self.time(Phase::Update, 0, |d| d.float_update(op))
    }

    fn square_sum(&self, op: SquareSum<'_>) -> Result<(), qft_optim::Error> {
        self.time(Phase::Update, 0, |d| d.square_sum(op))
    }
}
