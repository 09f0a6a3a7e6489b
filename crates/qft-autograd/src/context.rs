//! What every layer needs to know about the pass it takes part in.

use crate::{Error, LayerOps, Products};
use qft_tensor::{Purpose, RngKey, Rounding};

/// One of the tensors of a model, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// The device, the number format, and the names of the random streams of one micro-batch of one step.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The device.
    pub ops: &'a dyn LayerOps,
    /// Numbers of the products of linear layers.
    pub compute: Products,
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step.
    pub step: u32,
    /// Micro-batch within the step, below [`qft_tensor::MAX_MICRO_BATCHES`].
    pub micro_batch: usize,
    /// How many micro-batches the step has, in all processes.
    pub micro_batches: usize,
}

impl Context<'_> {
    /// Stochastic rounding from this micro-batch's stream for a part of a tensor.
    ///
    /// Errors: [`qft_tensor::Error::StreamRange`].
    pub fn stochastic(
        &self,
        tensor: TensorId,
        purpose: Purpose,
        part: usize,
    ) -> Result<Rounding, Error> {
        let place = (self.micro_batch, part);
        let key = RngKey::of_part(self.seed, self.step, tensor.0, purpose, place)?;
        Ok(Rounding::Stochastic { key, first_row: 0 })
    }
}
