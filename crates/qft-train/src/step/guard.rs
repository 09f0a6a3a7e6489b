//! Notices when the loss of a run explodes.

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Steps whose mean is looked at: one batch alone may be hard.
const WINDOW: usize = 8;

/// Nats above the lowest mean so far, and times that mean, from which on a loss has exploded. A change of the data from
/// text that the model knows to text that it does not is 1 to 3 nats; weights that are ruined cost more.
const NATS: f64 = 4.0;
const TIMES: f64 = 2.0;

/// Watches the loss of a run. A checkpoint keeps what it knows, so that a resumed run notices as one that never stopped.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LossGuard {
    last: VecDeque<f64>,
    lowest: Option<f64>,
}

impl LossGuard {
    /// Looks at the loss of step `step`.
    ///
    /// Errors: the mean of the last steps is far above the lowest it has been.
    pub fn check(&mut self, step: u64, loss: f64) -> Result<()> {
        self.last.push_back(loss);
        if self.last.len() > WINDOW {
            self.last.pop_front();
        }
        let mean = self.last.iter().sum::<f64>() / self.last.len() as f64;
        // The very first losses are the model's own; a run that begins to diverge at once must be seen too.
        let lowest = self.lowest.map_or(mean, |lowest| lowest.min(mean));
        self.lowest = Some(lowest);
        if !has_exploded(mean, lowest) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Diverged,
            format!(
                "step {step}: the loss has exploded: {mean:.2} on average over the last {} steps, and {lowest:.2} at \
                 its lowest; checkpoints from before it rose are kept, and none of a step with such a loss was saved; \
                 choose a lower --lr, or give --insist to train anyway",
                self.last.len()
            ),
        ))
    }

    /// Whether the last loss is as high as that of a run that has exploded: its state should not take the place of an
    /// older one.
    pub fn is_suspect(&self) -> bool {
        matches!((self.last.back(), self.lowest), (Some(&last), Some(lowest)) if has_exploded(last, lowest))
    }
}

fn has_exploded(loss: f64, lowest: f64) -> bool {
    loss > lowest + NATS && loss > lowest * TIMES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exploded_at(losses: impl IntoIterator<Item = f64>) -> Option<usize> {
        let mut guard = LossGuard::default();
        losses.into_iter().position(|loss| guard.check(1, loss).is_err())
    }

    #[test]
    fn an_explosion_is_seen_within_a_window() {
        let explodes = (0..100).map(|i| if i < 50 { 2.0 } else { 12.0 });
        assert!(exploded_at(explodes).is_some_and(|at| (50..58).contains(&at)));
        // Rising from the first step on.
        assert!(exploded_at((0..20).map(|i| 9.0 + 3.0 * f64::from(i))).is_some_and(|at| at < 12));
    }

    #[test]
    fn a_state_of_a_high_loss_is_not_worth_saving() {
        let mut guard = LossGuard::default();
        assert!(!guard.is_suspect());
        for (loss, suspect) in [(2.0, false), (2.1, false), (9.0, true), (5.9, false)] {
            guard.check(1, loss).unwrap();
            assert_eq!(guard.is_suspect(), suspect, "{loss}");
        }
        let text = serde_json::to_string(&guard).unwrap();
        assert_eq!(serde_json::from_str::<LossGuard>(&text).unwrap(), guard);
    }

    #[test]
    fn noise_hard_batches_and_new_data_are_no_explosion() {
        let noise = (0..200).map(|i| 2.0 + f64::from(i * 37 % 11) / 5.0);
        assert_eq!(exploded_at(noise), None);
        let one_hard = (0..200).map(|i| if i == 77 { 15.0 } else { 2.0 });
        assert_eq!(exploded_at(one_hard), None);
        let new_data = (0..200).map(|i| if i < 100 { 0.5 } else { 3.5 });
        assert_eq!(exploded_at(new_data), None);
    }
}
