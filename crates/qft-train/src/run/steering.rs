//! When a run saves, looks at its model and ends: small rules about what is done.

use super::events::{Event, Moment, Observers};
use super::finetune::{Run, State};
use super::output;
use super::summary::EarlyEnd;
use crate::error::Result;
use crate::step::checkpoint::{self, Progress};
use crate::step::evaluations::{Best, Evaluations};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The clocks of a run, or of the part of it that this process does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    began: Instant,
    saved: Instant,
}

impl Clocks {
    /// Of a run that begins now.
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { began: now, saved: now }
    }

    /// A checkpoint was saved.
    pub(super) fn saved(&mut self) {
        self.saved = Instant::now();
    }
}

impl Run<'_> {
    /// Whether a checkpoint is due after the step that was just done. That of a loss which may be exploding never is.
    pub(super) fn save_is_due(&self, state: &State) -> Result<bool> {
        let options = &self.options.progress;
        let by_step = is_multiple(state.progress.step, options.checkpoint_every);
        let by_time = match options.checkpoint_minutes {
            Some(minutes) => self.agreed(state.clocks.saved.elapsed() >= minutes.duration())?,
            None => false,
        };
        Ok((by_step || by_time) && !state.progress.guard.is_suspect())
    }

    /// Evaluates if that is due after the steps that are done, and keeps what is the best. A run that was resumed does what
    /// it was killed in.
    pub(super) fn look(&self, state: &mut State, observers: &mut Observers<'_, '_>) -> Result<()> {
        let step = state.progress.step;
        let between = step > 0 && u64::from(step) < self.schedule.total;
        let due = between && is_multiple(step, self.options.progress.eval_every);
        if !due || state.progress.evaluations.has(step) {
            return Ok(());
        }
        let loss = self.evaluate(state, Moment::During, observers)?;
        self.note(state, loss, observers)?;
        self.sample(state, Moment::During, observers)
    }

    /// Remembers what an evaluation has found. With `--keep-best` the best has its checkpoint.
    pub(super) fn note(
        &self,
        state: &mut State,
        loss: Option<f64>,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        let (step, Some(loss)) = (state.progress.step, loss) else { return Ok(()) };
        let better = state.progress.evaluations.add(step, loss);
        if !better || !self.options.progress.keep_best {
            return Ok(());
        }
        // The one that was the best before is removed with the next that is confirmed.
        state.unconfirmed = true;
        if state.saved < step { self.save_on_the_way(state, observers) } else { Ok(()) }
    }

    /// Why training ends after the steps that are done, if it does.
    pub(super) fn ends_early(&self, state: &State) -> Result<Option<EarlyEnd>> {
        let options = &self.options.progress;
        let since = state.progress.evaluations.since_best();
        if options.patience.is_some_and(|patience| since >= patience) {
            return Ok(Some(EarlyEnd::Patience));
        }
        // A step at least: a run that goes on again and again must come to its end.
        let begun = state.final_loss.is_some();
        let Some(minutes) = options.max_minutes.filter(|_| begun) else { return Ok(None) };
        let over = self.agreed(state.clocks.began.elapsed() >= minutes.duration())?;
        Ok(over.then_some(EarlyEnd::MaxMinutes))
    }

    /// With `--keep-best`, loads the best model of the run, to be saved instead of the last.
    pub(super) fn take_best(
        &self,
        state: &mut State,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        let Some(best) = self.best(&state.progress.evaluations) else { return Ok(()) };
        if best.step == state.progress.step {
            return Ok(());
        }
        let progress = Progress { step: best.step, ..state.progress.clone() };
        let root = output::checkpoints(&self.options.files.out);
        let dir = self.folder_of(best).unwrap_or_else(|| checkpoint::folder(&root, best.step));
        // From here on the trainer has nothing that a checkpoint of the last step could be made of.
        state.saved = state.progress.step;
        checkpoint::load(&*self.ops, &mut state.trainer, &progress, &dir)?;
        state.final_eval_loss = Some(best.eval_loss);
        observers.tell(Event::TookBest(best))
    }

    /// The evaluation whose model is saved, if that is the best one.
    pub(super) fn best(&self, evaluations: &Evaluations) -> Option<Best> {
        evaluations.best().filter(|_| self.options.progress.keep_best)
    }

    /// What a resumed run knows of its evaluations. The best counts only if it can be loaded.
    pub(super) fn evaluations_of(&self, progress: &Progress) -> Result<Evaluations> {
        let mut evaluations = progress.evaluations;
        let Some(best) = self.best(&evaluations) else { return Ok(evaluations) };
        let found = best.step == progress.step || self.folder_of(best).is_some();
        if !self.agreed(found)? {
            tracing::warn!(
                "--keep-best: the checkpoint of step {}, whose held-out loss was the lowest, is not there; the best from \
                 here on is kept",
                best.step
            );
            evaluations.forget_best();
        }
        Ok(evaluations)
    }

    /// The checkpoint of the best evaluation: in the output folder, or where the run was resumed from.
    fn folder_of(&self, best: Best) -> Option<PathBuf> {
        let own = output::checkpoints(&self.options.files.out);
        let resumed = self.resumed.as_deref().and_then(Path::parent);
        let roots = [Some(own.as_path()), resumed];
        let dirs = roots.into_iter().flatten().map(|root| checkpoint::folder(root, best.step));
        dirs.into_iter().find(|dir| checkpoint::read_progress(dir).is_ok())
    }

    /// What the process that leads says of a clock or a disk: all hear it.
    fn agreed(&self, own: bool) -> Result<bool> {
        Ok(self.job.of_leader(u32::from(own))? > 0)
    }
}

fn is_multiple(step: u32, every: Option<u64>) -> bool {
    every.is_some_and(|every| u64::from(step) % every == 0)
}
