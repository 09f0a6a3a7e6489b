//! The outcomes of a job, as lines of a table: a row at its best learning rate, with all of its seeds.

use crate::parity::results::{Outcome, best_of};
use crate::parity::statistics::Estimate;
use std::collections::BTreeMap;

/// All lines of a job.
pub(in crate::parity) struct Lines<'a> {
    lines: Vec<Line<'a>>,
}

/// A row at its best learning rate.
pub(in crate::parity) struct Line<'a> {
    pub(in crate::parity) name: &'a str,
    /// A run of each seed, the first seed first.
    pub(super) runs: Vec<&'a Outcome>,
    /// Seeds, and their losses.
    pub(super) losses: Vec<(u64, f64)>,
    /// Whether no lower, and no higher rate was tried.
    pub(super) ends: (bool, bool),
}

impl<'a> Lines<'a> {
    /// Of the outcomes of one job, the oldest first.
    pub(in crate::parity) fn of(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        // Of several runs of the same, the newest counts.
        let mut newest: BTreeMap<(&str, u64, u64), &Outcome> = BTreeMap::new();
        for outcome in outcomes {
            newest.insert((&outcome.row, outcome.lr.to_bits(), outcome.seed), outcome);
        }
        let mut rows: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
        for outcome in newest.into_values() {
            rows.entry(&outcome.row).or_default().push(outcome);
        }
        Self { lines: rows.into_iter().filter_map(|(name, runs)| Line::of(name, runs)).collect() }
    }

    /// The line of that row, if it came to a loss.
    pub(in crate::parity) fn row(&self, name: &str) -> Option<&Line<'a>> {
        self.lines.iter().find(|line| line.name == name)
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Line<'a>] {
        &self.lines
    }
}

impl<'a> Line<'a> {
    fn of(name: &'a str, runs: Vec<&'a Outcome>) -> Option<Self> {
        let first = runs.iter().map(|run| run.seed).min()?;
        let tried = || runs.iter().copied().filter(|run| run.seed == first);
        let best = best_of(tried())?.lr;
        let lone = tried().count() < 2;
        let ends = (
            !lone && tried().all(|run| run.lr >= best),
            !lone && tried().all(|run| run.lr <= best),
        );
        let mut runs: Vec<_> = runs.into_iter().filter(|run| run.lr == best).collect();
        runs.sort_by_key(|run| run.seed);
        let losses = runs.iter().filter_map(|run| Some((run.seed, run.trained.loss?))).collect();
        Some(Self { name, runs, losses, ends })
    }

    /// The run with the first seed.
    pub(in crate::parity) fn best(&self) -> &'a Outcome {
        self.runs[0]
    }

    /// The loss over the seeds.
    pub(super) fn loss(&self) -> Option<Estimate> {
        Estimate::of(self.losses.iter().map(|(_, loss)| *loss))
    }

    /// How far the loss lies above that of `other`, seed by seed.
    pub(super) fn gap(&self, other: &Self) -> Option<Estimate> {
        let of = |seed: u64| other.losses.iter().find(|(other, _)| *other == seed);
        let gaps = self.losses.iter().filter_map(|(seed, loss)| Some(loss - of(*seed)?.1));
        Estimate::of(gaps)
    }

    /// The loss of what was written.
    pub(super) fn exported(&self) -> Option<Estimate> {
        Estimate::of(self.runs.iter().filter_map(|run| Some(run.exported.as_ref()?.loss)))
    }

    /// The accuracy on a set; on all of them together if no name is given. In percent.
    pub(super) fn accuracy(&self, set: Option<&str>) -> Option<Estimate> {
        let of = |run: &&Outcome| {
            let scores = run.exported.as_ref()?.scores.iter();
            let chosen = scores.filter(|score| set.is_none_or(|set| score.set == set));
            Estimate::of(chosen.map(|score| score.quoted() * 100.0)).map(|all| all.mean)
        };
        Estimate::of(self.runs.iter().filter_map(of))
    }

    /// Of a figure of every run, the mean.
    pub(super) fn mean(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        Estimate::of(self.runs.iter().map(|run| of(run))).map_or(0.0, |mean| mean.mean)
    }
}
