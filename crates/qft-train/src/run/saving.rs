//! The checkpoints of a run: written between steps, or by a thread from a copy of the states while training goes on.

use super::events::{Event, Observers};
use super::finetune::{Run, State};
use super::output;
use super::recipe::Recipe;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::machine::memory::FreeMemory;
use crate::options::CheckpointCopy;
use crate::step::checkpoint::{self, Progress};
use crate::step::snapshot::Snapshot;
use qft_files::Disk;
use qft_tensor::{DeviceKind, Ledger};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// What is written while training goes on.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// The copy that the next checkpoint is written from, if there has been one.
    spare: Option<Snapshot>,
    writing: Option<Writing>,
}

/// A checkpoint that a thread is writing.
#[derive(Debug)]
struct Writing {
    step: u32,
    thread: JoinHandle<(Snapshot, Result<PathBuf>)>,
}

impl Run<'_> {
    /// Saves a checkpoint on the way: training goes on as soon as the states are copied, if there is room for that.
    pub(super) fn save_on_the_way(
        &self,
        state: &mut State,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        self.settle(state, observers)?;
        if !self.job.leads() {
            return self.save(state, observers);
        }
        let Some(mut snapshot) = self.room(state)? else { return self.save(state, observers) };
        let begun = Instant::now();
        snapshot.take(&*self.ops, &mut state.trainer)?;
        let (copied, bytes) = (begun.elapsed().as_secs_f64(), snapshot.bytes());
        let progress = state.progress.clone();
        let root = output::checkpoints(&self.options.files.out);
        let write = move || {
            let begun = Instant::now();
            let written = snapshot.save_on(&Disk::default(), &progress, &root);
            let seconds = begun.elapsed().as_secs_f64();
            tracing::info!(
                "checkpoint of step {}: {bytes} bytes, copied in {copied:.3} s, written in {seconds:.3} s",
                progress.step
            );
            (snapshot, written)
        };
        let step = state.progress.step;
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(write);
        let thread = thread.context("no thread to write a checkpoint")?;
        state.background.writing = Some(Writing { step, thread });
        state.saved = step;
        state.clocks.saved();
        state.unconfirmed = true;
        Ok(())
    }

    /// Makes room for copies of the states before the first step, if checkpoints will be written from them.
    pub(super) fn make_room(&self, state: &mut State) -> Result<()> {
        if !self.job.leads() || !self.options.progress.saves_on_its_way(self.schedule.total) {
            return Ok(());
        }
        if let Some(mut snapshot) = self.room(state)? {
            snapshot.touch(&*self.ops)?;
            state.background.spare = Some(snapshot);
        }
        Ok(())
    }

    /// Room for a copy of the states; none if training is to wait for the disk. On a GPU's machine it is beside the plan, which
    /// is that of the GPU.
    fn room(&self, state: &mut State) -> Result<Option<Snapshot>> {
        if let Some(spare) = state.background.spare.take() {
            return Ok(Some(spare));
        }
        let ledger = match self.ops.kind() {
            DeviceKind::Cpu if self.copies => Arc::clone(self.ops.ledger()),
            DeviceKind::Cpu => return Ok(None),
            _ => {
                let bytes = Snapshot::bytes_of(&mut state.trainer);
                let free = FreeMemory::now().map_or(0, |free| free.bytes);
                let room = match self.options.progress.checkpoint_copy {
                    CheckpointCopy::Auto => bytes < free / 2,
                    CheckpointCopy::Always => true,
                    CheckpointCopy::Never => false,
                };
                if !room {
                    return Ok(None);
                }
                Arc::new(Ledger::default())
            }
        };
        Snapshot::alloc(&ledger, &mut state.trainer).map(Some)
    }

    /// Takes note of a checkpoint that a thread has written, if it has.
    pub(super) fn poll(&self, state: &mut State, observers: &mut Observers<'_, '_>) -> Result<()> {
        let writing = state.background.writing.as_ref();
        if writing.is_some_and(|writing| writing.thread.is_finished()) {
            return self.settle(state, observers);
        }
        Ok(())
    }

    /// Waits for the checkpoint that is being written, if there is one.
    pub(super) fn settle(
        &self,
        state: &mut State,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        let Some(Writing { step, thread }) = state.background.writing.take() else { return Ok(()) };
        let (snapshot, written) = thread.join().map_err(|_| {
            Error::new(ErrorKind::Other, "the thread that writes a checkpoint has failed")
        })?;
        state.background.spare = Some(snapshot);
        let dir = written?;
        observers.tell(Event::Saved { checkpoint: &dir, step: step.into() })
    }

    /// Saves a checkpoint while training waits.
    pub(super) fn save(&self, state: &mut State, observers: &mut Observers<'_, '_>) -> Result<()> {
        self.settle(state, observers)?;
        if !self.job.leads() {
            state.saved = state.progress.step;
            return checkpoint::serve(&*self.ops, &mut state.trainer);
        }
        let begun = Instant::now();
        let root = output::checkpoints(&self.options.files.out);
        let State { trainer, progress, .. } = state;
        let dir = checkpoint::save(&*self.ops, trainer, progress, &root)?;
        let seconds = begun.elapsed().as_secs_f64();
        tracing::info!("checkpoint of step {}: written in {seconds:.3} s", progress.step);
        state.saved = progress.step;
        state.clocks.saved();
        state.unconfirmed = true;
        observers.tell(Event::Saved { checkpoint: &dir, step: state.saved.into() })
    }

    /// Saves what was done since the last checkpoint, and removes those that it replaces. The memory of copies is given back
    /// first.
    pub(super) fn save_at_the_end(
        &self,
        state: &mut State,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        let settled = self.settle(state, observers);
        state.background.spare = None;
        settled?;
        if state.saved < state.progress.step {
            self.save(state, observers)?;
        }
        self.prune(state)
    }

    /// Removes checkpoints that the newest one replaces, once a step has shown that it is as good: the loss of a checkpoint is
    /// that of the step after it.
    pub(super) fn confirm(&self, state: &mut State) -> Result<()> {
        let confirmed = state.progress.step > state.saved && !state.progress.guard.is_suspect();
        if !state.unconfirmed || !confirmed || state.background.writing.is_some() {
            return Ok(());
        }
        state.unconfirmed = false;
        self.prune(state)
    }

    /// Removes checkpoints of this run that newer ones replace; never the one that is to become the model.
    pub(super) fn prune(&self, state: &State) -> Result<()> {
        if !self.job.leads() {
            return Ok(());
        }
        let root = output::checkpoints(&self.options.files.out);
        let best = self.best(&state.progress.evaluations).map(|best| best.step);
        let own = |older: &Progress| {
            Recipe::from_json(&older.recipe, &root).is_ok_and(|then| {
                let step = u64::from(older.step);
                best != Some(older.step) && state.recipe.continues(&then, step, &root).is_ok()
            })
        };
        let keep = self.options.progress.keep_checkpoints;
        checkpoint::prune(&root, state.saved, keep, &own)
    }
}
