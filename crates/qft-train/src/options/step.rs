//! The shape of a step: how many sequences of how many tokens.

use super::value::whole;
use crate::error::{Result, ensure};
use qft_llama::LlamaConfig;
use qft_tensor::MAX_MICRO_BATCHES;
use serde::{Deserialize, Serialize};

/// The default number of tokens per sequence.
pub const DEFAULT_SEQ_LEN: usize = 512;

/// The default number of sequences per micro-batch.
pub const DEFAULT_BATCH_SIZE: usize = 4;

/// The sequences of a micro-batch, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct BatchArgs {
    /// Tokens per sequence; what becomes of longer documents is up to --too-long [default: 512, or the model's limit if that is less]
    #[arg(long, value_name = "TOKENS", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Data")]
    pub seq_len: Option<usize>,
    /// Sequences per micro-batch [default: 4]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Training")]
    pub batch_size: Option<usize>,
}

/// The micro-batches of a step, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AccumulateArgs {
    /// Micro-batches per optimizer step [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Training")]
    pub accumulate: Option<usize>,
}

/// The shape of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepOptions {
    /// Tokens per sequence, if given.
    pub seq_len: Option<usize>,
    /// Sequences per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
}

impl BatchArgs {
    /// Fills in the defaults and checks everything.
    ///
    /// Errors: a value out of its range; more tokens in a step than can be counted.
    pub fn resolve(self, accumulate: AccumulateArgs) -> Result<StepOptions> {
        let Self { seq_len, batch_size } = self;
        let AccumulateArgs { accumulate } = accumulate;
        ensure!(
            seq_len != Some(0),
            "--seq-len is 0; give the number of tokens per sequence, such as 512"
        );
        ensure!(
            batch_size != Some(0),
            "--batch-size is 0; give at least 1 sequence per micro-batch"
        );
        ensure!(accumulate != Some(0), "--accumulate is 0; give 1 for no accumulation");
        let batch_size = batch_size.unwrap_or(DEFAULT_BATCH_SIZE);
        let accumulate = accumulate.unwrap_or(1);
        ensure!(
            accumulate <= MAX_MICRO_BATCHES,
            "--accumulate: {accumulate} is more than the {MAX_MICRO_BATCHES} micro-batches that have random numbers of \
             their own; raise --batch-size instead"
        );
        let tokens = [batch_size, accumulate, seq_len.unwrap_or(DEFAULT_SEQ_LEN)]
            .into_iter()
            .try_fold(1usize, |product, factor| product.checked_mul(factor))
            .filter(|&tokens| tokens <= u32::MAX as usize);
        ensure!(
            tokens.is_some(),
            "--batch-size {batch_size} with --accumulate {accumulate}: more tokens in a step than can be counted; \
             make one of them smaller"
        );
        Ok(StepOptions { seq_len, batch_size, accumulate })
    }
}

impl StepOptions {
    /// Tokens per sequence for a model.
    ///
    /// Errors: more were asked for than the model has positions, or than its shortest window: attention does not
    /// leave out what is beyond a window, so a sequence must not reach there.
    pub fn seq_len(&self, config: &LlamaConfig) -> Result<usize> {
        let limit = config.longest_sequence();
        let Some(asked) = self.seq_len else { return Ok(DEFAULT_SEQ_LEN.min(limit)) };
        ensure!(
            asked <= config.max_position_embeddings,
            "--seq-len: {asked} is longer than the model's limit of {} positions \
             (max_position_embeddings); give at most {limit}",
            config.max_position_embeddings
        );
        ensure!(
            asked <= limit,
            "--seq-len: {asked} is longer than the window of {limit} tokens that layers of the model see \
             (sliding_window), beyond which they are not computed; give at most {limit}"
        );
        Ok(asked)
    }

    /// Sequences per optimizer step.
    pub fn sequences_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }
}
