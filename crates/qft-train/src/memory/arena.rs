//! What to reserve before the first step, so that steps on rows of any lengths find places for all their buffers in it.

use super::plan::{RunShape, StepShape};
use crate::error::Result;
use crate::step::Setup;
use qft_llama::config::LlamaConfig;
use qft_llama::model::Model;
use qft_llama::{Batch, IGNORE};
use qft_tensor::Device;
use qft_tensor::arena::ALIGNMENT_BYTES;

/// Steps on shorter rows that are tried: where the buffers of micro-batches differ in size, more is left between them than where
/// all are of full length.
const TRIED: usize = 8;

/// Their micro-batches, all together: more would take long, and differ less.
const TRIED_MICRO_BATCHES: usize = 32;

/// Rows are shorter than the longest by up to this part of it, and by up to so many tokens. Those that are much shorter fit anyway.
const SHORTER: usize = 32;
const SHORTER_TOKENS: usize = 32;

/// What lengths between those that were tried may need beyond them: this part of it, and so many bytes, as places have borders
/// that small buffers feel.
const SLACK: u64 = 256;
const SLACK_BYTES: u64 = 64 << 10;

/// Bytes of an arena for all that a run of `shape` does from its first step on, apart from saving the model.
pub(super) fn needed(config: &LlamaConfig, setup: &Setup, shape: RunShape) -> Result<u64> {
    let planner = shape.process.planner();
    let model = Model::alloc(&planner, config, setup.format)?;
    let mut trainer = shape.trainer(&planner, setup, model)?;
    planner.trim();
    planner.ledger().measure_arena()?;
    shape.look(&planner, &trainer)?;
    trainer.step(&planner, &shape.step.full_batches(), 0.0)?;
    let tried = (TRIED_MICRO_BATCHES / shape.step.accumulate.max(1)).clamp(1, TRIED);
    for number in 0..tried {
        trainer.step(&planner, &shorter(shape.step, number), 0.0)?;
    }
    let bytes = planner.ledger().report().arena_bytes;
    Ok((bytes + bytes / SLACK + SLACK_BYTES).next_multiple_of(ALIGNMENT_BYTES))
}

/// The micro-batches of a step on rows that are a little shorter than the longest; in every other step a third of the positions has
/// no target.
fn shorter(shape: StepShape, number: usize) -> Vec<Batch> {
    let longest = shape.seq_len;
    let range = (longest / SHORTER).max(SHORTER_TOKENS).clamp(1, longest.max(1));
    let row = |row: usize| {
        // A number that looks like chance, of step and row.
        let mixed = (number * 1_000_003 + row + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let len = longest - mixed % range;
        let ids = vec![0; len];
        let mut targets = ids.clone();
        if number % 2 == 1 {
            targets[..len / 3].fill(IGNORE);
        }
        (ids, targets)
    };
    let batch = |index: usize| {
        let mut batch = Batch::default();
        for at in 0..shape.batch_size {
            let (ids, targets) = row(index * shape.batch_size + at);
            batch.push(&ids, &targets);
        }
        batch
    };
    (0..shape.accumulate).map(batch).collect()
}
