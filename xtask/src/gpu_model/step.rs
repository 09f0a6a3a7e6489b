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
    // Where protected weights lie is a matter of the model's values, which there are none of.
    let setup = setup_of(states, Some(0.0), recompute)?;
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

#[cfg(test)]
mod tests {
    use super::super::cards::CARDS;
    use super::super::resources::Resource;
    use super::super::work::Runner;
    use super::*;

    fn way(recompute: Recompute) -> Way {
        let shape = StepShape { seq_len: 256, batch_size: 1, accumulate: 1 };
        Way { shape, recompute }
    }

    #[test]
    fn a_step_multiplies_what_its_model_asks_for() {
        let mut config = LlamaConfig::preset("llama-110m").unwrap();
        config.num_hidden_layers = 2;
        config.layers.truncate(2);
        config.vocab_size = 4096;
        // Weights of the blocks' matrices, which take three products; the head takes four, or three if its logits are kept.
        let blocks: usize = config
            .tensors()
            .filter(|tensor| tensor.rows > 1 && tensor.name.contains("layers"))
            .map(|tensor| tensor.elements())
            .sum();
        let head = config.vocab_size * config.hidden_size;
        for card in &CARDS[..2] {
            let recorded = record(card, &config, States::Full, way(Recompute::None)).unwrap();
            let work = Runner::default().work(&recorded.unwrap().requests).unwrap();
            let products = |unit| -> f64 {
                work.iter().map(|work| (work.main + work.tail).of(unit) * work.blocks).sum()
            };
            let all = products(Resource::Int8) + products(Resource::Warpgroup);
            let (least, most) = (3 * blocks + 3 * head, 3 * blocks + 4 * head);
            let tokens = 256.0;
            assert!(all >= least as f64 * tokens, "{}: {all}", card.name);
            // Tiles reach beyond the borders of some results.
            assert!(all <= 1.1 * most as f64 * tokens, "{}: {all}", card.name);
        }
    }

    #[test]
    fn launches_grow_with_each_block_by_the_same_number() {
        let launches = |layers| {
            let mut config = LlamaConfig::preset("llama-110m").unwrap();
            config.num_hidden_layers = layers;
            config.layers.truncate(layers);
            let step = record(&CARDS[1], &config, States::Full, way(Recompute::Block)).unwrap();
            step.unwrap().requests.len()
        };
        let [two, three, four] = [2, 3, 4].map(launches);
        assert!(two > 50 && three > two);
        assert_eq!(three - two, four - three);
    }

    #[test]
    fn a_card_without_the_memory_has_no_way() {
        let config = LlamaConfig::preset("llama-2-7b").unwrap();
        let shape = StepShape { seq_len: 2048, batch_size: 8, accumulate: 1 };
        let way = Way { shape, recompute: Recompute::None };
        assert!(record(&CARDS[1], &config, States::Full, way).unwrap().is_none());
    }

    #[test]
    fn ways_are_from_large_micro_batches_to_small_ones() {
        let all = Way::all(2048, 8, Recompute::None);
        let sizes: Vec<_> = all.iter().map(|way| way.shape.batch_size).collect();
        assert_eq!(sizes, [8, 4, 2, 1]);
        assert!(all.iter().all(|way| way.tokens() == 8 * 2048));
    }
}
