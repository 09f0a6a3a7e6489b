//! Cross-entropy, block by block of the vocabulary.

use super::expect;
use crate::Error;
use qft_tensor::Buffer;

/// Running log-sum-exp over blocks of the vocabulary.
///
/// For the columns `start..start + cols` of the logits: updates `max[m]` and `sum[m]` so that
/// `max + ln(sum)` is the log-sum-exp of all columns seen, and keeps the target's logit when it passes.
/// Shapes: `logits` f32 `[M, cols]`; `targets` u32 `[M]`; `max`, `sum`, `target_logit` f32 `[M]`. With
/// `start == 0` the running values are set, else updated.
#[derive(Debug)]
pub struct LossStats<'a> {
    /// Logits of this block.
    pub logits: &'a Buffer<f32>,
    /// First column of the block.
    pub start: usize,
    /// Columns of the block.
    pub cols: usize,
    /// Target ids.
    pub targets: &'a Buffer<u32>,
    /// Running maximum.
    pub max: &'a mut Buffer<f32>,
    /// Running sum of `exp(logit - max)`.
    pub sum: &'a mut Buffer<f32>,
    /// Logit of the target.
    pub target_logit: &'a mut Buffer<f32>,
}

impl LossStats<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        let m = self.targets.len();
        if self.logits.len() < m * self.cols {
            return Err(Error::shape("loss_stats", m * self.cols, self.logits.len()));
        }
        for len in [self.max.len(), self.sum.len(), self.target_logit.len()] {
            expect("loss_stats", m, len)?;
        }
        Ok(())
    }
}

/// Gradient of the mean cross-entropy for a block of the vocabulary, in place:
/// `logits = (exp(logit - max) / sum - [column == target]) * weight`.
///
/// Shapes as [`LossStats`], after its last block.
#[derive(Debug)]
pub struct LossGradient<'a> {
    /// Logits in, their gradient out.
    pub logits: &'a mut Buffer<f32>,
    /// First column of the block.
    pub start: usize,
    /// Columns of the block.
    pub cols: usize,
    /// Target ids.
    pub targets: &'a Buffer<u32>,
    /// Final maximum.
    pub max: &'a Buffer<f32>,
    /// Final sum.
    pub sum: &'a Buffer<f32>,
    /// One over the number of targets of the whole batch.
    pub weight: f32,
}

impl LossGradient<'_> {
    /// Checks all shapes.
    pub fn check(&self) -> Result<(), Error> {
        let m = self.targets.len();
        if self.logits.len() < m * self.cols {
            return Err(Error::shape("loss_gradient", m * self.cols, self.logits.len()));
        }
        expect("loss_gradient", m, self.max.len())?;
        expect("loss_gradient", m, self.sum.len())
    }
}
