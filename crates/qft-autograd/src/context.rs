//! What every layer needs to know about the pass it takes part in.

use crate::LayerOps;
use qft_tensor::{RngKey, Rounding};
use serde::{Deserialize, Serialize};

/// In which numbers linear layers multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// INT8 x INT8 -> INT32, all three products.
    Int8,
    /// f32 on dequantized operands.
    Float,
}

/// One of the tensors of a model, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// What random numbers are drawn for; part of their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The update of weights and momentum.
    Update = 1,
    /// Gradient of an output, on the way to the gradient of the input.
    InputGradient = 2,
    /// Gradient of an output, on the way to the gradient of the weight.
    WeightGradient = 3,
    /// A gradient that is kept on the gradient stack.
    StoredGradient = 4,
}

/// The device, the number format, and the names of the random streams of one micro-batch of one step.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The device.
    pub ops: &'a dyn LayerOps,
    /// Number format of the linear layers.
    pub compute: Compute,
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step.
    pub step: u32,
    /// Micro-batch within the step, below 4096.
    pub micro_batch: u32,
}

impl Context<'_> {
    /// The stream for `purpose`; `block` (below 4096) tells apart the parts of one tensor.
    pub fn key(&self, tensor: TensorId, purpose: Purpose, block: u32) -> RngKey {
        RngKey {
            seed: self.seed,
            step: self.step,
            tensor: tensor.0,
            purpose: (purpose as u32) << 24 | (self.micro_batch & 0xFFF) << 12 | (block & 0xFFF),
        }
    }

    /// Stochastic rounding from that stream.
    pub fn stochastic(&self, tensor: TensorId, purpose: Purpose, block: u32) -> Rounding {
        Rounding::Stochastic(self.key(tensor, purpose, block))
    }
}
