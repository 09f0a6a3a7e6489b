//! A training step of a model on a card: what the trainer asks the card to do.

use super::cards::Card;
use super::recorder::{Recorder, Request};
use crate::bench_memory::{setup_of, text_like_batch};
use anyhow::Result;
use qft_cuda::{Cuda, Driver};
use qft_llama::LlamaConfig;
use qft_llama::model::Model;
use qft_llama::pass::Recompute;
use qft_tensor::{CpuConfig, Host, Isa};
use qft_train::memory::StepShape;
use qft_train::options::States;
use std::sync::Arc;

/// How a step is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Way {
    pub(super) shape: StepShape,
    pub(super) recompute: Recompute,
}

impl Way {
    /// With as large micro-batches as possible: from all of a step's sequences at a time to one.
    pub(super) fn all(seq_len: usize, sequences: usize, recompute: Recompute) -> Vec<Self> {
        let halves = (0..).map(|i| sequences >> i).take_while(|&batch_size| batch_size > 0);
        halves
            .filter(|batch_size| sequences.is_multiple_of(*batch_size))
            .map(|batch_size| {
                let accumulate = sequences / batch_size;
                Self { shape: StepShape { seq_len, batch_size, accumulate }, recompute }
            })
            .collect()
    }

    pub(super) fn tokens(&self) -> usize {
        self.shape.seq_len * self.shape.batch_size * self.shape.accumulate
    }
}

/// A recorded step.
pub(super) struct Recorded {
    pub(super) requests: Vec<Request>,
    pub(super) peak_bytes: u64,
}

/// The second step of a model, as the trainer does it; none if the card has not the memory for it.
pub(super) fn record(
    card: &Card,
    config: &LlamaConfig,
    states: States,
    way: Way,
) -> Result<Option<Recorded>> {
    let recorder = Arc::new(Recorder::new(card));
    let result = steps(&recorder, config, states, way);
    if result.is_err() && recorder.is_exhausted() {
        return Ok(None);
    }
    Ok(Some(result?))
}

fn steps(
    recorder: &Arc<Recorder>,
    config: &LlamaConfig,
    states: States,
    Way { shape, recompute }: Way,
) -> Result<Recorded> {
    let setup = setup_of(states, None, recompute)?;
    let host = Arc::new(Host::new(CpuConfig { threads: 1, isa: Isa::SCALAR })?);
    let cuda = Cuda::untried(Arc::clone(recorder) as Arc<dyn Driver>, host)?;
    let model = Model::alloc(&cuda, config, setup.format)?;
    let mut trainer = setup.trainer(&cuda, model)?;
    let part = StepShape { accumulate: 1, ..shape };
    let batches = vec![text_like_batch(config, part); shape.accumulate];
    // The first step allocates what the second one finds.
    trainer.step(&cuda, &batches, 1e-4)?;
    recorder.take();
    trainer.step(&cuda, &batches, 1e-4)?;
    Ok(Recorded { requests: recorder.take(), peak_bytes: recorder.peak_bytes() })
}
