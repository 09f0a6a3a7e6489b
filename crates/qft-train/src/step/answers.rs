//! What became of a model's answers: checkpoints keep what it was before the first step.

use serde::{Deserialize, Serialize};

/// What became of answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Questions that were asked.
    pub asked: usize,
    /// Answers that ended by themselves, with an end token. The others ran on until they were cut.
    pub ended: usize,
    /// Tokens of an answer, on average.
    pub mean_tokens: f64,
}
