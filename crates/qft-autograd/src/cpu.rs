//! Layer operations on the CPU.
//!
//! Elementwise loops are written once and compiled for each instruction set; sums have a fixed order. Results are
//! the same bits on every instruction set and for every number of threads.

mod attention;
mod bias;
mod convert;
mod embedding;
mod exp;
mod lanes;
mod loss;
mod rmsnorm;
mod rope;
mod rows;
mod scaled_add;
mod swiglu;
mod unit_sum;

use crate::Error;
use crate::ops::*;
use qft_tensor::Cpu;

impl LayerOps for Cpu {
    fn embed_forward(&self, op: EmbedForward<'_>) -> Result<(), Error> {
        embedding::forward(self, op)
    }

    fn embed_backward(&self, op: EmbedBackward<'_>) -> Result<(), Error> {
        embedding::backward(self, op)
    }

    fn gather_rows(&self, op: GatherRows<'_>) -> Result<(), Error> {
        embedding::gather_rows(self, op)
    }

    fn scatter_rows(&self, op: ScatterRows<'_>) -> Result<(), Error> {
        embedding::scatter_rows(self, op)
    }

    fn rmsnorm_forward(&self, op: RmsNormForward<'_>) -> Result<(), Error> {
        rmsnorm::forward(self, op)
    }

    fn rmsnorm_backward(&self, op: RmsNormBackward<'_>) -> Result<(), Error> {
        rmsnorm::backward(self, op)
    }

    fn rope(&self, op: Rope<'_>) -> Result<(), Error> {
        rope::rope(self, op)
    }

    fn attention_forward(&self, op: AttentionForward<'_>) -> Result<(), Error> {
        attention::forward(self, op)
    }

    fn attention_backward(&self, op: AttentionBackward<'_>) -> Result<(), Error> {
        attention::backward(self, op)
    }

    fn attention_decode(&self, op: AttentionDecode<'_>) -> Result<(), Error> {
        attention::decode(self, op)
    }

    fn swiglu_forward(&self, op: SwigluForward<'_>) -> Result<(), Error> {
        swiglu::forward(self, op)
    }

    fn swiglu_backward(&self, op: SwigluBackward<'_>) -> Result<(), Error> {
        swiglu::backward(self, op)
    }

    fn loss_stats(&self, op: LossStats<'_>) -> Result<(), Error> {
        loss::stats(self, op)
    }

    fn loss_gradient(&self, op: LossGradient<'_>) -> Result<(), Error> {
        loss::gradient(self, op)
    }

    fn add_bias(&self, op: AddBias<'_>) -> Result<(), Error> {
        bias::add(self, op)
    }

    fn bias_gradient(&self, op: BiasGradient<'_>) -> Result<(), Error> {
        bias::gradient(self, op)
    }

    fn scaled_add(&self, op: ScaledAdd<'_>) -> Result<(), Error> {
        scaled_add::scaled_add(self, op)
    }

    fn raise_bound(&self, op: RaiseBound<'_>) -> Result<(), Error> {
        unit_sum::raise_bound(op)
    }

    fn from_units(&self, op: FromUnits<'_>) -> Result<(), Error> {
        unit_sum::from(self, op)
    }

    fn to_bf16(&self, op: ToBf16<'_>) -> Result<(), Error> {
        convert::to_bf16(self, op)
    }

    fn from_bf16(&self, op: FromBf16<'_>) -> Result<(), Error> {
        convert::from_bf16(self, op)
    }
}
