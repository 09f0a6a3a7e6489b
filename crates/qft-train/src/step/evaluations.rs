//! What a run remembers of its evaluations: which was the best, and how many have come since.

use serde::{Deserialize, Serialize};

/// The evaluations of a run after at least one step. A checkpoint keeps this, so that a resumed run ends where one that never
/// stopped does.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Evaluations {
    /// Steps that were done at the last of them.
    last: Option<u32>,
    best: Option<Best>,
    /// How many have come since the best.
    since: u32,
}

/// The evaluation with the lowest held-out loss; of several, the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps that were done.
    pub step: u32,
    /// Mean negative log-likelihood per target token of the held-out data.
    pub eval_loss: f64,
}

impl Evaluations {
    /// Adds one, unless that of this step is known, and says whether it is the best. A loss that is not a number never is.
    pub fn add(&mut self, step: u32, eval_loss: f64) -> bool {
        if self.has(step) {
            return self.best.is_some_and(|best| best.step == step);
        }
        self.last = Some(step);
        let better = self.best.is_none_or(|best| eval_loss < best.eval_loss) && !eval_loss.is_nan();
        if better {
            (self.best, self.since) = (Some(Best { step, eval_loss }), 0);
        } else {
            self.since += 1;
        }
        better
    }

    /// Whether the model has been evaluated after `step` steps.
    pub fn has(&self, step: u32) -> bool {
        self.last == Some(step)
    }

    /// The best of them.
    pub fn best(&self) -> Option<Best> {
        self.best
    }

    /// How many in a row, to the last, have found no lower loss.
    pub fn since_best(&self) -> u32 {
        self.since
    }

    /// Forgets the best: the next one is.
    pub fn forget_best(&mut self) {
        (self.best, self.since) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_lowest_is_the_best() {
        let mut evaluations = Evaluations::default();
        let losses = [(2, 3.0, true), (4, 2.0, true), (6, 2.0, false), (8, f64::NAN, false)];
        for (step, loss, better) in losses {
            assert!(!evaluations.has(step));
            assert_eq!(evaluations.add(step, loss), better, "{step}");
            assert!(evaluations.has(step));
        }
        let best = Some(Best { step: 4, eval_loss: 2.0 });
        assert_eq!((evaluations.best(), evaluations.since_best()), (best, 2));
        let text = serde_json::to_string(&evaluations).unwrap();
        assert_eq!(serde_json::from_str::<Evaluations>(&text).unwrap(), evaluations);
        // The same evaluation again is no other.
        assert!(!evaluations.add(8, 1.0));
        assert_eq!(evaluations.since_best(), 2);
        assert!(evaluations.add(10, 1.5) && evaluations.since_best() == 0);
        assert!(evaluations.add(10, 1.5));
        evaluations.forget_best();
        assert!(evaluations.add(12, 9.0));
    }

    #[test]
    fn losses_that_are_no_numbers_are_never_the_best() {
        let mut evaluations = Evaluations::default();
        assert!(!evaluations.add(1, f64::NAN) && evaluations.best().is_none());
        assert!(evaluations.add(2, 7.0));
    }
}
