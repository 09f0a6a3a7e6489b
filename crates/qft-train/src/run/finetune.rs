//! The run: what a fine-tune does, from its options to the saved model.

use super::events::{Event, Moment, Observer, Observers};
use super::folder::ModelFolder;
use super::named::Origins;
use super::output::{self, OutputFolder};
use super::recipe::Recipe;
use super::samples::SamplePrompt;
use super::saved::SavedModel;
use super::saving::Background;
use super::steering::Clocks;
use super::summary::{EarlyEnd, EvalMetrics, Owners, StepMetrics, Stopped, Summary};
use crate::TrainOps;
use crate::data::questions::Question;
use crate::data::{Dataset, EvalSet, Order};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::machine::Job;
use crate::machine::profile::StepClock;
use crate::memory::{Fit, MemoryPlan};
use crate::options::FinetuneOptions;
use crate::step::answers::Answers;
use crate::step::checkpoint::{self, Progress};
use crate::step::diagnostics::Diagnostics;
use crate::step::trainer::StepReport;
use crate::step::{Setup, Trainer};
use qft_llama::Batch;
use qft_optim::Schedule;
use qft_tensor::Traffic;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Fine-tunes a model and saves it, as `options` say; `observers` hear of everything that happens.
///
/// When `stop` is set, the run saves a checkpoint and ends within the time of a step; [`Summary::stopped`] says so then.
///
/// Errors: anything wrong with options, files or memory, each with what to do about it; [`ErrorKind::Stopped`] if the
/// run was stopped before it had begun. Nothing is left half-written, and what was saved before stays. Once the model is
/// saved, a stop leaves out no more than measuring it.
pub fn finetune(
    options: &FinetuneOptions,
    stop: &AtomicBool,
    observers: &mut [&mut dyn Observer],
) -> Result<Summary> {
    finetune_in(&Job::alone(), options, stop, observers)
}

/// The same by the processes of a job, which all call it with the same options: they share the micro-batches of each step
/// and the evaluations, and come to the bits that one process comes to. The first of them leads: it alone writes, and lets the
/// model answer. All have to find model, data and checkpoint under their names.
///
/// Errors: as [`finetune`], and what differs between the processes. Where one has an error, the others wait for it in vain
/// until their time is up: end the job.
pub fn finetune_in(
    job: &Job,
    options: &FinetuneOptions,
    stop: &AtomicBool,
    observers: &mut [&mut dyn Observer],
) -> Result<Summary> {
    let mut observers = Observers(observers);
    let mut run = Run::prepare(job, options, stop, &mut observers)?;
    let mut state = run.start(&mut observers)?;
    let _folder = run.begin(&state, &mut observers)?;
    match run.train(&mut state, &mut observers) {
        Ok(()) => run.finish(state, &mut observers),
        Err(error) if error.kind() == ErrorKind::Stopped => run.stopped(&mut state, &mut observers),
        Err(error) => match run.settle(&mut state, &mut observers) {
            // What was being written is whole: the last good checkpoint of a run that has diverged.
            Ok(()) => Err(error),
            Err(other) => Err(error.context(format!("{other:#}; and before"))),
        },
    }
}

/// Everything that a run works with and does not change.
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) options: &'a FinetuneOptions,
    pub(super) stop: &'a AtomicBool,
    /// The checkpoint that it goes on from.
    pub(super) resumed: Option<PathBuf>,
    pub(super) ops: Arc<dyn TrainOps>,
    pub(super) clock: Option<StepClock>,
    pub(super) folder: ModelFolder,
    /// Where model and data came from, if they were named.
    pub(super) origins: Origins,
    /// Tokens of a sequence at most.
    pub(super) seq_len: usize,
    pub(super) train: Dataset,
    pub(super) held_out: Vec<EvalSet<Dataset>>,
    /// The chat template that the data is written with, if it is not the model's own.
    pub(super) template: Option<String>,
    /// How the saved model is measured on the held-out data.
    pub(super) saved: Option<SavedModel>,
    pub(super) prompts: Vec<SamplePrompt>,
    /// Held-out questions to answer.
    pub(super) questions: Vec<Question>,
    /// Sequences that the whole run takes.
    pub(super) sequences: u64,
    pub(super) schedule: Schedule,
    pub(super) fit: Fit,
    /// Whether the plan has room for a copy of the states, from which checkpoints are written.
    pub(super) copies: bool,
    pub(super) setup: Setup,
}

/// Where a run stands.
pub(super) struct State {
    pub(super) recipe: Recipe,
    pub(super) trainer: Trainer,
    pub(super) progress: Progress,
    /// The step of the newest checkpoint, be it written or being written.
    pub(super) saved: u32,
    /// Whether no step has shown yet that it is as good as those before it.
    pub(super) unconfirmed: bool,
    pub(super) background: Background,
    pub(super) order: Order,
    pub(super) clocks: Clocks,
    /// What was found last of the held-out data.
    pub(super) evaluated: Option<EvalMetrics>,
    pub(super) ended_early: Option<EarlyEnd>,
    pub(super) final_loss: Option<f64>,
    pub(super) final_eval_loss: Option<f64>,
    pub(super) final_answers: Option<Answers>,
}

impl Run<'_> {
    /// Takes the output folder: from here on there is something on the disk.
    fn begin(
        &self,
        state: &State,
        observers: &mut Observers<'_, '_>,
    ) -> Result<Option<OutputFolder>> {
        let files = &self.options.files;
        let begin = || OutputFolder::begin(files, self.resumed.as_deref());
        let folder = self.job.leads().then(begin).transpose()?;
        if let Some(aside) = folder.as_ref().and_then(|folder| folder.set_aside.as_ref()) {
            observers.tell(Event::SetAside(aside))?;
        }
        let (step, steps) = (u64::from(state.progress.step), self.schedule.total);
        observers.tell(Event::Started { out: &files.out, step, steps })?;
        Ok(folder)
    }

    /// The steps, and what comes before and after them.
    fn train(&mut self, state: &mut State, observers: &mut Observers<'_, '_>) -> Result<()> {
        self.sample(state, Moment::Before, observers)?;
        if state.progress.initial_eval_loss.is_none() {
            state.progress.initial_eval_loss = self.evaluate(state, Moment::Before, observers)?;
        }
        self.answer_before(state, observers)?;
        self.make_room(state)?;
        state.clocks = Clocks::start();
        self.look(state, observers)?;
        while u64::from(state.progress.step) < self.schedule.total {
            self.check_stop("training")?;
            self.check_stop_of_all()?;
            self.poll(state, observers)?;
            state.ended_early = self.ends_early(state)?;
            if let Some(why) = state.ended_early {
                observers.tell(Event::EndedEarly { why, progress: &state.progress })?;
                break;
            }
            let metrics = self.step(state)?;
            observers.tell(Event::Stepped(&metrics))?;
            if !self.options.training.insist {
                state.progress.guard.check(metrics.step, metrics.loss)?;
            }
            self.confirm(state)?;
            if metrics.step == self.schedule.total {
                break;
            }
            // Saved first: what an evaluation is stopped in is not lost.
            if self.save_is_due(state)? {
                self.save_on_the_way(state, observers)?;
            }
            self.look(state, observers)?;
        }
        // The model is exported even if there is no room for the last checkpoint.
        let saved = self.save_at_the_end(state, observers);
        let exported = self.show_and_export(state, observers);
        match (saved, exported) {
            (Err(saved), Err(exported)) if exported.kind() != ErrorKind::Stopped => {
                Err(exported.context(format!("{saved:#}; and then")))
            }
            (saved, exported) => exported.and(saved),
        }
    }

    fn show_and_export(&self, state: &mut State, observers: &mut Observers<'_, '_>) -> Result<()> {
        state.final_eval_loss = self.evaluate(state, Moment::After, observers)?;
        self.note(state, state.final_eval_loss, observers)?;
        self.take_best(state, observers)?;
        self.prune(state)?;
        self.sample(state, Moment::After, observers)?;
        state.final_answers = self.answer(state, Moment::After, observers)?;
        self.export(state, observers)
    }

    /// One optimizer step.
    fn step(&mut self, state: &mut State) -> Result<StepMetrics> {
        let (start, traffic) = (Instant::now(), Traffic::of(&*self.ops));
        if let Some(clock) = &mut self.clock {
            clock.begin();
        }
        let sequences = self.take(&mut state.order, state.progress.step);
        let batches = self.batches(&sequences)?;
        if let Some(clock) = &self.clock {
            clock.data_ready();
        }
        let number = u64::from(state.progress.step) + 1;
        let lr = self.schedule.lr(number - 1);
        let StepReport { loss, update } = state
            .trainer
            .step(&*self.ops, &batches, lr as f32)
            .with_context(|| format!("step {number}"))?;
        let seconds = start.elapsed().as_secs_f64();
        let profile = self.clock.as_mut().map(StepClock::end);
        let positions: usize = batches.iter().map(Batch::tokens).sum();
        let State { trainer, progress, .. } = state;
        progress.step = trainer.pass.step;
        progress.tokens += loss.target_tokens as u64;
        progress.positions += positions as u64;
        progress.rescaled_rows += update.rescaled_rows;
        progress.seconds += seconds;
        progress.last_norm = trainer.optimizer.last_norm;
        state.final_loss = Some(loss.mean);
        let diagnostics = trainer.optimizer.diagnostics.as_mut();
        let take_step = |seen: &mut Diagnostics| seen.take_step(self.ops.communicator());
        Ok(StepMetrics {
            step: number,
            loss: loss.mean,
            accuracy: loss.accuracy(),
            lr,
            tokens: progress.tokens,
            tokens_per_second: loss.target_tokens as f64 / seconds,
            positions: progress.positions,
            positions_per_second: positions as f64 / seconds,
            peak_bytes: self.ops.ledger().report().peak_bytes,
            grad_norm: Some(update.grad_norm),
            rescaled_rows: update.rescaled_rows,
            speed_of_light: profile.and_then(|profile| profile.speed_of_light),
            diagnostics: diagnostics.map(take_step).transpose()?,
            exchange: (!self.job.is_alone()).then(|| Traffic::of(&*self.ops).since(traffic).into()),
        })
    }

    /// The order of the data, where it stands after `step` steps.
    pub(super) fn order_at(&self, step: u32) -> Order {
        let taken = u64::from(step) * self.options.step.sequences_per_step() as u64;
        let (seed, shuffle) = (self.options.training.seed, self.options.layout.shuffle);
        Order::at(self.train.shares(), seed, shuffle, taken)
    }

    /// The sequences of the step after `step`, the next ones of `order`; the last step of a run takes what is left.
    pub(super) fn take(&self, order: &mut Order, step: u32) -> Vec<usize> {
        let per_step = self.options.step.sequences_per_step();
        let left = self.sequences.saturating_sub(u64::from(step) * per_step as u64);
        order.take(per_step.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }

    /// Sequences as micro-batches.
    pub(super) fn batches(&self, sequences: &[usize]) -> Result<Vec<Batch>> {
        let chunks = sequences.chunks(self.options.step.batch_size);
        chunks.map(|sequences| self.train.batch(sequences)).collect()
    }

    /// Ends the run at a place where nothing is half done, if that was asked for.
    pub(super) fn check_stop(&self, during: &str) -> Result<()> {
        if self.job.is_alone() && self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Stopped, format!("stopped while {during}")));
        }
        Ok(())
    }

    /// The same between steps, where the processes of a job agree on it.
    fn check_stop_of_all(&self) -> Result<()> {
        if !self.job.is_alone() && self.job.stops(self.stop)? {
            return Err(Error::new(ErrorKind::Stopped, "stopped while training"));
        }
        Ok(())
    }

    /// Ends a run that was asked to stop: what was done since the last checkpoint is saved.
    fn stopped(&self, state: &mut State, observers: &mut Observers<'_, '_>) -> Result<Summary> {
        self.save_at_the_end(state, observers)?;
        let root = output::checkpoints(&self.options.files.out);
        let dir = (state.saved > 0).then(|| checkpoint::folder(&root, state.saved));
        let checkpoint = dir.filter(|dir| dir.exists());
        let step = u64::from(state.progress.step);
        observers.tell(Event::Stopped { step, checkpoint: checkpoint.as_deref() })?;
        Ok(Summary { stopped: Some(Stopped { checkpoint }), ..self.summary(state) })
    }

    /// Ends a run whose model is saved. What is measured then costs nothing that is done.
    fn finish(&self, state: State, observers: &mut Observers<'_, '_>) -> Result<Summary> {
        let mut summary = self.summary(&state);
        observers.tell(Event::Finished(&summary))?;
        // Its memory is free for the saved model.
        drop(state);
        if !self.job.leads() {
            return Ok(summary);
        }
        let saved_step = summary.best.map_or(summary.steps, |best| u64::from(best.step));
        if let Some(found) = self.measure_saved(saved_step)? {
            let measured = self.measured();
            summary.peak_bytes = measured.peak_bytes;
            summary.owners.measured = by_owner(&measured);
            summary.saved_eval = Some(found);
            observers.tell(Event::SavedEvaluated(&summary))?;
        }
        Ok(summary)
    }

    /// Memory as it was in use until now.
    fn measured(&self) -> MemoryPlan {
        MemoryPlan::of_device(&*self.ops, &self.folder.config, self.setup.gradients)
    }

    pub(super) fn summary(&self, state: &State) -> Summary {
        let measured = self.measured();
        let progress = &state.progress;
        Summary {
            initial_eval_loss: progress.initial_eval_loss,
            final_eval_loss: state.final_eval_loss,
            best: self.best(&progress.evaluations),
            ended_early: state.ended_early,
            saved_eval: None,
            initial_answers: progress.initial_answers,
            final_answers: state.final_answers,
            final_loss: state.final_loss,
            steps: u64::from(progress.step),
            tokens: progress.tokens,
            positions: progress.positions,
            seconds: progress.seconds,
            rescaled_rows: progress.rescaled_rows,
            parameters: measured.parameters,
            bytes_per_parameter: measured.bytes_per_parameter,
            planned_peak_bytes: self.fit.plan.peak_bytes,
            peak_bytes: measured.peak_bytes,
            owners: Owners { planned: by_owner(&self.fit.plan), measured: by_owner(&measured) },
            profile: self.clock.as_ref().map(|clock| clock.total.clone()),
            diagnostics: state.trainer.optimizer.diagnostics.as_ref().map(Diagnostics::report),
            origins: self.origins.clone(),
            stopped: None,
        }
    }
}

/// The most bytes of each owner.
fn by_owner(plan: &MemoryPlan) -> BTreeMap<String, u64> {
    plan.owners.iter().map(|o| (o.owner.to_owned(), o.peak_bytes)).collect()
}
