//! Gradients of vectors that wait until all micro-batches have theirs.

use super::processes;
use crate::ops::ScaledAdd;
use crate::{Context, Error, GradientSink, Vector};
use qft_tensor::{Buffer, Owner};

/// The gradient of a vector from each of this process's micro-batches, until their sum is flushed.
#[derive(Debug, Default)]
pub struct PendingVector(Vec<(usize, Buffer<f32>)>);

impl PendingVector {
    /// The gradient from the context's micro-batch so far, to add to: f32 of the length of `vector`.
    pub(super) fn sum(
        &mut self,
        ctx: &Context<'_>,
        vector: &Vector,
    ) -> Result<&mut Buffer<f32>, Error> {
        let known = self.0.iter().position(|(number, _)| *number == ctx.micro_batch);
        let index = match known {
            Some(index) => index,
            None => {
                let (owner, len) = (Owner::Gradients, vector.data.len());
                let zeros = Buffer::zeros(ctx.ops, owner, "vector gradient", len)?;
                self.0.push((ctx.micro_batch, zeros));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[index].1)
    }

    /// Hands the sum over all micro-batches to the sink, added in the order of their numbers.
    pub fn flush(
        &mut self,
        ctx: &Context<'_>,
        vector: &mut Vector,
        sink: &mut dyn GradientSink,
    ) -> Result<(), Error> {
        let mut own = std::mem::take(&mut self.0);
        own.sort_by_key(|(number, _)| *number);
        let own = own.into_iter().map(|(_, gradient)| gradient).collect();
        let lens = vec![vector.data.len(); ctx.micro_batches];
        let all = processes::gather_buffers(ctx.ops, own, &lens, "vector gradient")?;
        let mut all = all.into_iter();
        let Some(mut sum) = all.next() else {
            return Err(Error::WrongSaved { layer: "vector", what: "flushed before any backward" });
        };
        for gradient in all {
            ctx.ops.scaled_add(ScaledAdd { src: &gradient, scale: 1.0, dst: &mut sum })?;
        }
        sink.vector(vector, &sum)
    }
}
