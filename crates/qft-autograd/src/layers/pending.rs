//! Gradients of vectors that wait until all micro-batches have added theirs.

use crate::{Context, Error, GradientSink, Vector};
use qft_tensor::{Buffer, Owner};

/// The gradient of a vector, summed over micro-batches until it is flushed.
#[derive(Debug, Default)]
pub struct PendingVector(Option<Buffer<f32>>);

impl PendingVector {
    /// The sum so far, to add to: f32 of the length of `vector`.
    pub(super) fn sum(
        &mut self,
        ctx: &Context<'_>,
        vector: &Vector,
    ) -> Result<&mut Buffer<f32>, Error> {
        Ok(match &mut self.0 {
            Some(sum) => sum,
            none => none.insert(Buffer::zeros(
                ctx.ops,
                Owner::Gradients,
                "vector gradient",
                vector.data.len(),
            )?),
        })
    }

    /// Hands the sum to the sink.
    pub fn flush(&mut self, vector: &mut Vector, sink: &mut dyn GradientSink) -> Result<(), Error> {
        match self.0.take() {
            Some(sum) => sink.vector(vector, &sum),
            None => Err(Error::WrongSaved { layer: "vector", what: "flushed before any backward" }),
        }
    }
}
