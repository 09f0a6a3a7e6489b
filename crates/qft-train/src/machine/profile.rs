//! Where the time of a step goes: a device that passes everything on to another, and keeps a clock.

mod report;

pub use report::{PhaseTotal, Profile, StepClock};

use crate::TrainOps;
use qft_autograd::ops::*;
use qft_optim::{FloatUpdate, MatrixUpdate, OptimOps, SquareSum};
use qft_quant::{DecodeRows, HybridOps, SparseBackward, SparseForward};
use qft_tensor::buffer::RawBuffer;
use qft_tensor::{
    Collectives, Communicator, DType, Dequantize, Device, DeviceKind, GemmF32, GemmI8, GemmOps,
    Host, Ledger, Orientation, Owner, Pieces, QuantizeCols, QuantizeOps, QuantizeRows, RotateRows,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    /// Products with protected weights.
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
    /// Rounding of the residual stream, biases, and sums.
    Stream,
    /// Updates of weights and moments.
    Update,
    /// Copies and zeroing.
    Memory,
    /// Putting rows of data together.
    Data,
}

impl Phase {
    /// All phases, in the order of reports.
    pub const ALL: [Self; 18] = [
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
        Self::Data,
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
            Self::Data => "data",
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
/// On a GPU every operation is waited for, so that the clock sees it: a profiled step is slower there than others.
#[derive(Debug)]
pub struct Profiled {
    inner: Arc<dyn TrainOps>,
    counters: [Counter; Phase::ALL.len()],
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

    fn time<R, E: From<qft_tensor::Error>>(
        &self,
        phase: Phase,
        operations: usize,
        f: impl FnOnce(&dyn TrainOps) -> Result<R, E>,
    ) -> Result<R, E> {
        let start = Instant::now();
        let result = f(&*self.inner)?;
        if let DeviceKind::Cuda(_) = self.inner.kind() {
            self.inner.synchronize()?;
        }
        self.add(phase, start.elapsed());
        let counter = &self.counters[phase as usize];
        counter.operations.fetch_add(operations as u64, Ordering::Relaxed);
        Ok(result)
    }

    /// Adds time that was spent outside of the device.
    pub fn add(&self, phase: Phase, time: Duration) {
        let counter = &self.counters[phase as usize];
        counter.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Device for Profiled {
    fn kind(&self) -> DeviceKind {
        self.inner.kind()
    }

    fn ledger(&self) -> &Arc<Ledger> {
        self.inner.ledger()
    }

    fn host(&self) -> Result<&Host, qft_tensor::Error> {
        self.inner.host()
    }

    fn communicator(&self) -> &dyn Communicator {
        self.inner.communicator()
    }

    fn collectives(&self) -> Option<&dyn Collectives> {
        self.inner.collectives()
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

    fn copy_pieces_raw(
        &self,
        dst: &mut RawBuffer,
        to: Pieces,
        src: &RawBuffer,
        from: Pieces,
    ) -> Result<(), qft_tensor::Error> {
        self.time(Phase::Memory, 0, |d| d.copy_pieces_raw(dst, to, src, from))
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

    fn reserve(&self, bytes: u64) -> Result<(), qft_tensor::Error> {
        self.inner.reserve(bytes)
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

/// Implements a trait of operations: each is counted under its phase.
macro_rules! timed {
    ($ops:ident, $error:ty: $($op:ident($what:ident) => $phase:ident),* $(,)?) => {
        impl $ops for Profiled {
            $(fn $op(&self, op: $what<'_>) -> Result<(), $error> {
                self.time(Phase::$phase, 0, |device| device.$op(op))
            })*
        }
    };
}

timed! { QuantizeOps, qft_tensor::Error:
    quantize_rows(QuantizeRows) => Quantize,
    quantize_cols(QuantizeCols) => Quantize,
    rotate_rows(RotateRows) => Quantize,
    dequantize(Dequantize) => Quantize,
}

timed! { HybridOps, qft_quant::Error:
    decode_rows(DecodeRows) => Decode,
    sparse_forward(SparseForward) => Sparse,
    sparse_backward(SparseBackward) => Sparse,
}

timed! { LayerOps, qft_autograd::Error:
    embed_forward(EmbedForward) => Embedding,
    embed_backward(EmbedBackward) => Embedding,
    gather_rows(GatherRows) => Embedding,
    scatter_rows(ScatterRows) => Embedding,
    rmsnorm_forward(RmsNormForward) => Norm,
    rmsnorm_backward(RmsNormBackward) => Norm,
    rope(Rope) => Rope,
    attention_forward(AttentionForward) => AttentionForward,
    attention_backward(AttentionBackward) => AttentionBackward,
    attention_decode(AttentionDecode) => AttentionForward,
    swiglu_forward(SwigluForward) => Swiglu,
    swiglu_backward(SwigluBackward) => Swiglu,
    loss_stats(LossStats) => Loss,
    loss_gradient(LossGradient) => Loss,
    add_bias(AddBias) => Stream,
    bias_gradient(BiasGradient) => Stream,
    scaled_add(ScaledAdd) => Stream,
    raise_bound(RaiseBound) => Stream,
    from_units(FromUnits) => Stream,
    to_bf16(ToBf16) => Stream,
    from_bf16(FromBf16) => Stream,
}

timed! { OptimOps, qft_optim::Error:
    matrix_update(MatrixUpdate) => Update,
    float_update(FloatUpdate) => Update,
    square_sum(SquareSum) => Update,
}
