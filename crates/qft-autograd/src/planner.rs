//! Layer operations that only check their shapes.

use crate::Error;
use crate::ops::*;
use qft_tensor::Planner;

impl LayerOps for Planner {
    fn embed_forward(&self, op: EmbedForward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn embed_backward(&self, op: EmbedBackward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn gather_rows(&self, op: GatherRows<'_>) -> Result<(), Error> {
        op.check()
    }

    fn scatter_rows(&self, op: ScatterRows<'_>) -> Result<(), Error> {
        op.check()
    }

    fn rmsnorm_forward(&self, op: RmsNormForward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn rmsnorm_backward(&self, op: RmsNormBackward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn rope(&self, op: Rope<'_>) -> Result<(), Error> {
        op.check()
    }

    fn attention_forward(&self, op: AttentionForward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn attention_backward(&self, op: AttentionBackward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn attention_decode(&self, op: AttentionDecode<'_>) -> Result<(), Error> {
        op.check().map(drop)
    }

    fn swiglu_forward(&self, op: SwigluForward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn swiglu_backward(&self, op: SwigluBackward<'_>) -> Result<(), Error> {
        op.check()
    }

    fn loss_stats(&self, op: LossStats<'_>) -> Result<(), Error> {
        op.check()
    }

    fn loss_gradient(&self, op: LossGradient<'_>) -> Result<(), Error> {
        op.check()
    }

    fn add_bias(&self, op: AddBias<'_>) -> Result<(), Error> {
        op.check().map(drop)
    }

    fn bias_gradient(&self, op: BiasGradient<'_>) -> Result<(), Error> {
        op.check().map(drop)
    }

    fn scaled_add(&self, op: ScaledAdd<'_>) -> Result<(), Error> {
        op.check()
    }

    fn raise_bound(&self, op: RaiseBound<'_>) -> Result<(), Error> {
        op.check()
    }

    fn from_units(&self, op: FromUnits<'_>) -> Result<(), Error> {
        op.check().map(drop)
    }

    fn to_bf16(&self, op: ToBf16<'_>) -> Result<(), Error> {
        op.check()
    }

    fn from_bf16(&self, op: FromBf16<'_>) -> Result<(), Error> {
        op.check()
    }
}
